//! Promise: `fjord import` creates endpoints for all seven procedures of Northwind, regardless of their names, and a
//! fleet serves these endpoints unchanged.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use fjord::config::procedures::{MssqlConfig, MssqlEncryption};
use http::Method;
use serde_json::{Map, Value, json};

use super::support::client::send;
use super::support::eventually::eventually_some;
use super::support::fjord_binary;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::mssql_server::{SqlServer, direct, recreate, servers};
use super::support::tds::northwind;

/// The time limit for a worker to serve a queue. Babelfish needs seconds for the first query on a connection.
const SERVED: Duration = Duration::from_mins(1);

/// Returns the configuration of a database.
fn database(name: &str, config: &MssqlConfig) -> String {
    let MssqlConfig { host, port, database, user, password, .. } = config;
    let tls = match &config.encryption {
        MssqlEncryption::TrustAny => "insecure_trust_any = true".to_owned(),
        MssqlEncryption::Required(files) | MssqlEncryption::Strict(files) => {
            files.ca.as_ref().map(|ca| format!("tls.ca = '{}'", ca.display())).unwrap_or_default()
        }
    };
    format!(
        "[procedures.databases.{name}]\nbackend = 'mssql'\n[procedures.databases.{name}.mssql]\n\
         host = '{host}'\nport = {port}\ndatabase = '{database}'\nuser = '{user}'\n\
         password = '{}'\n{tls}\n",
        password.expose()
    )
}

/// Imports the procedures. Returns the catalogue file as the command prints it.
fn imported(server: &SqlServer) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("endpoints")).expect("a directory");
    let text = format!(
        "[messaging.nats]\nservers = ['tls://127.0.0.1:4222']\n[worker.queues.'*']\n{}",
        database("default", &server.config)
    );
    fs::write(directory.path().join("worker.toml"), text).expect("a file");
    let mut command = Command::new(fjord_binary());
    command.args(["import", "northwind.*", "--auth", "public", "--config"]).arg(directory.path());
    let output = tokio::task::block_in_place(|| command.output().expect("fjord runs"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{}: {errors}", server.name);
    assert!(!errors.contains("skipped"), "{}: {errors}", server.name);
    String::from_utf8(output.stdout).expect("text")
}

/// Returns the value of a key, whose case Babelfish may change.
fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

/// Returns rows with columns in lower case, with numbers as doubles, and in a defined order. These conversions are
/// necessary because `203`, `203.00` and another order of a GROUP BY are equally correct.
fn comparable(rows: &Value) -> Vec<String> {
    let cell = |value: &Value| match value.as_f64() {
        Some(number) => json!(number),
        None => value.clone(),
    };
    let row = |row: &Value| {
        let cells = row.as_object().expect("a row").iter();
        let cells: Map<String, Value> =
            cells.map(|(name, value)| (name.to_lowercase(), cell(value))).collect();
        Value::from(cells).to_string()
    };
    let mut rows: Vec<String> = rows.as_array().expect("rows").iter().map(row).collect();
    rows.sort();
    rows
}

/// The procedures, with the arguments and the rows of their only result set.
fn calls() -> Vec<(&'static str, Value, Value)> {
    let year = json!({
        "Beginning_Date": "1997-01-01T00:00:00Z", "Ending_Date": "1997-12-31T00:00:00Z"
    });
    let shipped = "1997-09-02T00:00:00Z";
    let detail = |name, price, quantity, discount, total| {
        json!({ "ProductName": name, "UnitPrice": price, "Quantity": quantity, "Discount": discount,
            "ExtendedPrice": total })
    };
    let ten = [
        ("Marmalade", 81.0),
        ("Cranberry Sauce", 40.0),
        ("Ikura", 31.0),
        ("Boysenberry Spread", 25.0),
        ("Tofu", 23.25),
        ("Gumbo Mix", 21.35),
        ("Chang", 19.0),
        ("Chai", 18.0),
        ("Pavlova", 17.45),
        ("Aniseed Syrup", 10.0),
    ];
    let ten =
        ten.map(|(name, price)| json!({ "TenMostExpensiveProducts": name, "UnitPrice": price }));
    vec![
        (
            "CustOrderHist",
            json!({ "CustomerID": "ALFKI" }),
            json!([{ "ProductName": "Chai", "Total": 15 }, { "ProductName": "Chang", "Total": 21 }]),
        ),
        (
            "CustOrdersDetail",
            json!({ "OrderID": 10643 }),
            json!([detail("Chai", 18, 15, 25, 202.5), detail("Chang", 19, 21, 0, 399.0)]),
        ),
        (
            "CustOrdersOrders",
            json!({ "CustomerID": "ALFKI" }),
            json!([{ "OrderID": 10643, "OrderDate": "1997-08-25T00:00:00Z",
                "RequiredDate": "1997-09-22T00:00:00Z", "ShippedDate": shipped }]),
        ),
        (
            "[Employee Sales by Country]",
            year.clone(),
            json!([{ "Country": "UK", "LastName": "Suyama", "FirstName": "Michael",
                "ShippedDate": shipped, "OrderID": 10643, "SaleAmount": 601.5 }]),
        ),
        (
            "[Sales by Year]",
            year,
            json!([{ "ShippedDate": shipped, "OrderID": 10643, "Subtotal": 601.5, "Year": "1997" }]),
        ),
        (
            "SalesByCategory",
            json!({ "CategoryName": "Beverages", "OrdYear": "1997" }),
            json!([{ "ProductName": "Chai", "TotalPurchase": 203 },
                { "ProductName": "Chang", "TotalPurchase": 399 }]),
        ),
        ("[Ten Most Expensive Products]", json!({}), Value::from(ten.to_vec())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn all_seven_procedures_are_imported_and_served_without_a_change() {
    for server in servers().await {
        if server.fake.is_none() {
            let mut client = Box::pin(direct(&server.config)).await;
            recreate(&mut client, "northwind", northwind::SQL).await;
        }
        let text = imported(&server);
        let entries: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(entries.len(), 7, "{}: {text}", server.name);
        let mut worker_toml = String::from("[worker.queues]\n");
        for id in entries.keys() {
            writeln!(worker_toml, "'{id}' = {{ concurrency = 2, database = 'sql' }}")
                .expect("writing to a String cannot fail");
        }
        worker_toml.push_str(&database("sql", &server.config));
        let catalogue = Some(("northwind.json", &*Box::leak(text.into_boxed_str())));
        let options = FleetOptions { catalogue, worker_toml, ..FleetOptions::default() };
        let fleet = Fleet::start(options).await;
        let client = fleet.client();
        for (procedure, arguments, rows) in calls() {
            let name = format!("northwind.{procedure}");
            let is_of = |entry: &&Value| {
                entry["procedure"].as_str().is_some_and(|one| one.eq_ignore_ascii_case(&name))
            };
            let entry =
                entries.values().find(is_of).unwrap_or_else(|| panic!("no entry for {name}"));
            let route = entry["route"].as_str().expect("a route");
            let path = route.strip_prefix("POST ").expect("no name begins with a verb");
            // The keys are those of the imported parameters.
            let parameters = entry["parameters"].as_object().cloned().unwrap_or_default();
            let given = arguments.as_object().expect("arguments");
            let body: Map<String, Value> = parameters
                .keys()
                .map(|key| (key.clone(), get(given, key).expect("an argument").clone()))
                .collect();
            assert_eq!(body.len(), given.len(), "{}: {name}", server.name);
            // A worker joins a queue once it has read its procedure from the database.
            let answer = eventually_some(&name, SERVED, async || {
                let answer = if body.is_empty() {
                    send(client.request(Method::POST, path)).await
                } else {
                    client.send(Method::POST, path, &Value::from(body.clone())).await
                };
                (answer.status != 503).then_some(answer)
            })
            .await;
            let sets = answer.is(200).json()["sets"].clone();
            let [set] = sets.as_array().expect("sets").as_slice() else { panic!("{name}: {sets}") };
            assert_eq!(comparable(set), comparable(&rows), "{}: {name}", server.name);
        }
    }
}
