//! The answers of Northwind's procedures for the data in `northwind.sql`.

use super::procedures::FakeResult;
use super::reply::TdsReply;
use super::request::RpcParameter;
use super::values::Sql;

/// The script that creates the procedures on a real server. The fake server parses it.
pub(crate) const SQL: &str = include_str!("../northwind.sql");

/// 1997-08-25, 1997-09-22 and 1997-09-02, in days since 1900.
const ORDERED: Sql = Sql::DateTime(35_665, 0);
const REQUIRED: Sql = Sql::DateTime(35_693, 0);
const SHIPPED: Sql = Sql::DateTime(35_673, 0);
/// The number of the only order.
const ORDER: Sql = Sql::Int(10_643);
/// The products and their prices in hundredths. The most expensive product comes first.
const TEN: [(&str, i128); 10] = [
    ("Marmalade", 8100),
    ("Cranberry Sauce", 4000),
    ("Ikura", 3100),
    ("Boysenberry Spread", 2500),
    ("Tofu", 2325),
    ("Gumbo Mix", 2135),
    ("Chang", 1900),
    ("Chai", 1800),
    ("Pavlova", 1745),
    ("Aniseed Syrup", 1000),
];

/// The columns with their types, and the rows.
type ResultSet = (Vec<(&'static str, &'static str)>, Vec<Vec<Sql>>);

/// Executes a procedure of the schema `northwind`.
pub(super) fn run(name: &str, given: &[RpcParameter], reply: &mut TdsReply) -> FakeResult {
    let is_given =
        |name: &str, value: &Sql| given.iter().any(|one| one.name == name && one.value == *value);
    let year = |name: &str| given.iter().any(|one| one.name == name);
    let (columns, mut rows) = match name {
        "CustOrderHist" | "CustOrdersOrders" => of_customer(name),
        "CustOrdersDetail" => details(),
        "Employee Sales by Country" | "Sales by Year" => by_date(name),
        "SalesByCategory" => by_category(),
        "Ten Most Expensive Products" => ten_most_expensive(),
        other => panic!("no procedure {other}"),
    };
    let has_rows = match name {
        "CustOrdersDetail" => is_given("@OrderID", &ORDER),
        "CustOrderHist" | "CustOrdersOrders" => is_given("@CustomerID", &text("ALFKI")),
        "SalesByCategory" => {
            is_given("@CategoryName", &text("Beverages")) && is_given("@OrdYear", &text("1997"))
        }
        "Ten Most Expensive Products" => true,
        _ => year("@Beginning_Date") && year("@Ending_Date"),
    };
    if !has_rows {
        rows.clear();
    }
    reply.columns(&columns);
    for row in rows {
        let row: Vec<_> = columns.iter().map(|(_, kind)| *kind).zip(row).collect();
        reply.row(&row);
    }
    FakeResult::Returned(0, Vec::new())
}

fn of_customer(name: &str) -> ResultSet {
    if name == "CustOrderHist" {
        let rows = vec![vec![text("Chai"), Sql::Int(15)], vec![text("Chang"), Sql::Int(21)]];
        return (vec![("ProductName", "nvarchar(40)"), ("Total", "int")], rows);
    }
    let date = |name| (name, "datetime");
    (
        vec![("OrderID", "int"), date("OrderDate"), date("RequiredDate"), date("ShippedDate")],
        vec![vec![ORDER, ORDERED, REQUIRED, SHIPPED]],
    )
}

fn details() -> ResultSet {
    let row = |name, price, quantity, discount, total| {
        vec![text(name), money(price), Sql::Int(quantity), Sql::Int(discount), money(total)]
    };
    (
        vec![
            ("ProductName", "nvarchar(40)"),
            ("UnitPrice", "money"),
            ("Quantity", "smallint"),
            ("Discount", "int"),
            ("ExtendedPrice", "money"),
        ],
        vec![row("Chai", 1800, 15, 25, 20_250), row("Chang", 1900, 21, 0, 39_900)],
    )
}

fn by_date(name: &str) -> ResultSet {
    if name == "Sales by Year" {
        return (
            vec![
                ("ShippedDate", "datetime"),
                ("OrderID", "int"),
                ("Subtotal", "money"),
                ("Year", "nvarchar(30)"),
            ],
            vec![vec![SHIPPED, ORDER, money(60_150), text("1997")]],
        );
    }
    (
        vec![
            ("Country", "nvarchar(15)"),
            ("LastName", "nvarchar(20)"),
            ("FirstName", "nvarchar(10)"),
            ("ShippedDate", "datetime"),
            ("OrderID", "int"),
            ("SaleAmount", "money"),
        ],
        vec![vec![text("UK"), text("Suyama"), text("Michael"), SHIPPED, ORDER, money(60_150)]],
    )
}

fn by_category() -> ResultSet {
    let row = |name, total| vec![text(name), Sql::Decimal(total, 2)];
    (
        vec![("ProductName", "nvarchar(40)"), ("TotalPurchase", "decimal(38, 2)")],
        vec![row("Chai", 20_300), row("Chang", 39_900)],
    )
}

fn ten_most_expensive() -> ResultSet {
    (
        vec![("TenMostExpensiveProducts", "nvarchar(40)"), ("UnitPrice", "money")],
        TEN.iter().map(|(name, price)| vec![text(name), money(*price)]).collect(),
    )
}

fn text(text: &str) -> Sql {
    Sql::Text(text.to_owned())
}

/// Returns an amount in hundredths.
fn money(hundredths: i128) -> Sql {
    Sql::Decimal(hundredths, 2)
}
