-- The seven procedures of Microsoft's sample database Northwind, on tables with the columns that they use. Every batch ends
-- with GO on a line of its own. The tests' fake server reads the parameters of its procedures from this file.
CREATE SCHEMA northwind
GO
CREATE TABLE northwind.Customers (CustomerID nchar(5) NOT NULL PRIMARY KEY, CompanyName nvarchar(40) NOT NULL)
GO
CREATE TABLE northwind.Employees (EmployeeID int NOT NULL PRIMARY KEY, LastName nvarchar(20) NOT NULL, FirstName nvarchar(10) NOT NULL, Country nvarchar(15) NULL)
GO
CREATE TABLE northwind.Categories (CategoryID int NOT NULL PRIMARY KEY, CategoryName nvarchar(15) NOT NULL)
GO
CREATE TABLE northwind.Products (ProductID int NOT NULL PRIMARY KEY, ProductName nvarchar(40) NOT NULL, CategoryID int NULL, UnitPrice money NULL)
GO
CREATE TABLE northwind.Orders (OrderID int NOT NULL PRIMARY KEY, CustomerID nchar(5) NULL, EmployeeID int NULL, OrderDate datetime NULL, RequiredDate datetime NULL, ShippedDate datetime NULL)
GO
CREATE TABLE northwind.[Order Details] (OrderID int NOT NULL, ProductID int NOT NULL, UnitPrice money NOT NULL, Quantity smallint NOT NULL, Discount real NOT NULL)
GO
CREATE VIEW northwind.[Order Subtotals] AS SELECT d.OrderID, SUM(CONVERT(money, (d.UnitPrice * d.Quantity * (1 - d.Discount) / 100)) * 100) AS Subtotal FROM northwind.[Order Details] AS d GROUP BY d.OrderID
GO
INSERT INTO northwind.Customers VALUES (N'ALFKI', N'Alfreds Futterkiste')
GO
INSERT INTO northwind.Employees VALUES (6, N'Suyama', N'Michael', N'UK')
GO
INSERT INTO northwind.Categories VALUES (1, N'Beverages'), (2, N'Condiments')
GO
INSERT INTO northwind.Products VALUES (1, N'Chai', 1, 18), (2, N'Chang', 1, 19), (3, N'Aniseed Syrup', 2, 10), (4, N'Gumbo Mix', 2, 21.35), (5, N'Boysenberry Spread', 2, 25), (6, N'Cranberry Sauce', 2, 40), (7, N'Ikura', 2, 31), (8, N'Konbu', 2, 6), (9, N'Tofu', 2, 23.25), (10, N'Pavlova', 2, 17.45), (11, N'Marmalade', 2, 81)
GO
INSERT INTO northwind.Orders VALUES (10643, N'ALFKI', 6, '19970825', '19970922', '19970902')
GO
INSERT INTO northwind.[Order Details] VALUES (10643, 1, 18, 15, 0.25), (10643, 2, 19, 21, 0)
GO
CREATE PROCEDURE northwind.CustOrderHist @CustomerID nchar(5) AS SELECT p.ProductName, SUM(d.Quantity) AS Total FROM northwind.Products AS p JOIN northwind.[Order Details] AS d ON d.ProductID = p.ProductID JOIN northwind.Orders AS o ON o.OrderID = d.OrderID JOIN northwind.Customers AS c ON c.CustomerID = o.CustomerID WHERE c.CustomerID = @CustomerID GROUP BY p.ProductName
GO
CREATE PROCEDURE northwind.CustOrdersDetail @OrderID int AS SELECT p.ProductName, ROUND(d.UnitPrice, 2) AS UnitPrice, d.Quantity, CONVERT(int, d.Discount * 100) AS Discount, ROUND(CONVERT(money, d.Quantity * (1 - d.Discount) * d.UnitPrice), 2) AS ExtendedPrice FROM northwind.Products AS p JOIN northwind.[Order Details] AS d ON d.ProductID = p.ProductID WHERE d.OrderID = @OrderID
GO
CREATE PROCEDURE northwind.CustOrdersOrders @CustomerID nchar(5) AS SELECT OrderID, OrderDate, RequiredDate, ShippedDate FROM northwind.Orders WHERE CustomerID = @CustomerID ORDER BY OrderID
GO
CREATE PROCEDURE northwind.[Employee Sales by Country] @Beginning_Date datetime, @Ending_Date datetime AS SELECT e.Country, e.LastName, e.FirstName, o.ShippedDate, o.OrderID, s.Subtotal AS SaleAmount FROM northwind.Employees AS e JOIN northwind.Orders AS o ON o.EmployeeID = e.EmployeeID JOIN northwind.[Order Subtotals] AS s ON s.OrderID = o.OrderID WHERE o.ShippedDate BETWEEN @Beginning_Date AND @Ending_Date
GO
CREATE PROCEDURE northwind.[Sales by Year] @Beginning_Date datetime, @Ending_Date datetime AS SELECT o.ShippedDate, o.OrderID, s.Subtotal, DATENAME(year, o.ShippedDate) AS Year FROM northwind.Orders AS o JOIN northwind.[Order Subtotals] AS s ON s.OrderID = o.OrderID WHERE o.ShippedDate IS NOT NULL AND o.ShippedDate BETWEEN @Beginning_Date AND @Ending_Date
GO
CREATE PROCEDURE northwind.SalesByCategory @CategoryName nvarchar(15), @OrdYear nvarchar(4) = '1998' AS BEGIN IF @OrdYear <> '1996' AND @OrdYear <> '1997' AND @OrdYear <> '1998' SET @OrdYear = '1998'; SELECT p.ProductName, ROUND(SUM(CONVERT(decimal(14, 2), d.Quantity * (1 - d.Discount) * d.UnitPrice)), 0) AS TotalPurchase FROM northwind.[Order Details] AS d JOIN northwind.Orders AS o ON o.OrderID = d.OrderID JOIN northwind.Products AS p ON p.ProductID = d.ProductID JOIN northwind.Categories AS c ON c.CategoryID = p.CategoryID WHERE c.CategoryName = @CategoryName AND SUBSTRING(CONVERT(nvarchar(22), o.OrderDate, 111), 1, 4) = @OrdYear GROUP BY p.ProductName ORDER BY p.ProductName; END
GO
CREATE PROCEDURE northwind.[Ten Most Expensive Products] AS BEGIN SET ROWCOUNT 10; SELECT ProductName AS TenMostExpensiveProducts, UnitPrice FROM northwind.Products ORDER BY UnitPrice DESC; END
GO
