//! Defines SQL Server's types, and converts values to them (`encode`) and from them (`decode`).

use std::fmt;

mod code_page;
mod date_time;
mod decimal;
mod decode;
mod encode;
mod reason;
mod vector;

pub(super) use code_page::CodePage;
pub(super) use decode::{RowDecoder, owned};
pub(super) use encode::{EncodeError, as_parameter, encode, has_typed_null, null};
pub(super) use reason::CONVERT_IN_PROCEDURE;
use vector::VectorSize;

/// The longest `nvarchar` that is not `nvarchar(max)`.
const NVARCHAR_MAX: usize = 4000;
/// The length that the system views report for `max`.
const MAX: i16 = -1;

/// A SQL type with its length, precision or scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SqlType {
    Bit,
    /// `tinyint`: 0 to 255.
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    /// `decimal` and `numeric`.
    Decimal {
        /// The type's name, because Babelfish distinguishes the two.
        name: &'static str,
        /// The total number of digits.
        precision: u8,
        /// The number of digits after the decimal point.
        scale: u8,
    },
    /// `money`: four decimal places in 64 bits.
    Money,
    /// `smallmoney`: four decimal places in 32 bits.
    SmallMoney,
    Real,
    Float,
    /// Any type of text.
    Text {
        name: &'static str,
        /// The maximum length in bytes, or in byte pairs for UTF-16. `None` means `max`.
        length: Option<usize>,
        /// The code page in which the text is stored.
        code_page: CodePage,
    },
    /// `binary`, `varbinary`, `image`, `timestamp`.
    Binary {
        name: &'static str,
        /// The maximum length in bytes, or `None` for `max`.
        length: Option<usize>,
    },
    Date,
    /// `time`, with the number of fractional digits.
    Time(u8),
    /// `datetime`, in steps of 1/300 s.
    DateTime,
    /// `smalldatetime`, in steps of a minute.
    SmallDateTime,
    /// `datetime2`, with the number of fractional digits.
    DateTime2(u8),
    /// `datetimeoffset`, with the number of fractional digits.
    DateTimeOffset(u8),
    /// `uniqueidentifier`.
    Guid,
    Xml,
    /// `json`. A driver that does not support this type exchanges its values as text.
    Json,
    /// `vector`, with its size if that is known. A driver that does not support this type exchanges its values as the
    /// text of a JSON array.
    Vector(Option<VectorSize>),
    /// `sql_variant`.
    Variant,
    /// A type without a JSON representation, identified by its name.
    Other(String),
}

/// A type as the system views describe it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TypeDescription<'a> {
    /// The type's name or, for an alias type, the name of its base type.
    pub(super) name: &'a str,
    /// The length in bytes, or −1 for `max`.
    pub(super) length: i16,
    /// The total number of digits.
    pub(super) precision: u8,
    /// The number of digits after the decimal point of a number or of the seconds.
    pub(super) scale: u8,
    /// The code page of the collation, if the type has one.
    pub(super) code_page: CodePage,
}

impl SqlType {
    /// Creates a type from its description in the system views.
    pub(super) fn new(described: TypeDescription<'_>) -> Self {
        let TypeDescription { name, length, precision, scale, code_page } = described;
        let bytes = (length != MAX).then(|| usize::try_from(length).unwrap_or_default());
        let narrow = |name, length| Self::Text { name, length, code_page };
        let wide = |name, length| Self::Text { name, length, code_page: CodePage::UTF_16 };
        let pairs = bytes.map(|bytes| bytes / 2);
        match name {
            "bit" => Self::Bit,
            "tinyint" => Self::TinyInt,
            "smallint" => Self::SmallInt,
            "int" => Self::Int,
            "bigint" => Self::BigInt,
            "decimal" => Self::Decimal { name: "decimal", precision, scale },
            "numeric" => Self::Decimal { name: "numeric", precision, scale },
            "money" => Self::Money,
            "smallmoney" => Self::SmallMoney,
            "real" => Self::Real,
            "float" => Self::Float,
            "char" => narrow("char", bytes),
            "varchar" => narrow("varchar", bytes),
            "nchar" => wide("nchar", pairs),
            "nvarchar" => wide("nvarchar", pairs),
            "sysname" => wide("nvarchar", Some(128)),
            "text" => narrow("varchar", None),
            "ntext" => wide("nvarchar", None),
            "binary" => Self::Binary { name: "binary", length: bytes },
            "varbinary" => Self::Binary { name: "varbinary", length: bytes },
            "image" => Self::Binary { name: "varbinary", length: None },
            "timestamp" | "rowversion" => Self::Binary { name: "binary", length: Some(8) },
            "date" => Self::Date,
            "time" => Self::Time(scale),
            "datetime" => Self::DateTime,
            "smalldatetime" => Self::SmallDateTime,
            "datetime2" => Self::DateTime2(scale),
            "datetimeoffset" => Self::DateTimeOffset(scale),
            "uniqueidentifier" => Self::Guid,
            "xml" => Self::Xml,
            "json" => Self::Json,
            "vector" => Self::Vector(VectorSize::from_length(length)),
            "sql_variant" => Self::Variant,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Returns the `nvarchar` type that can hold every value of this type, or `None` if the driver
    /// does not exchange this type as text in a code page.
    pub(super) fn as_nvarchar(&self) -> Option<Self> {
        match self {
            Self::Text { length, code_page, .. } if *code_page != CodePage::UTF_16 => {
                let length = length.filter(|length| *length <= NVARCHAR_MAX);
                Some(Self::Text { name: "nvarchar", length, code_page: CodePage::UTF_16 })
            }
            Self::Json | Self::Vector(_) => {
                let code_page = CodePage::UTF_16;
                Some(Self::Text { name: "nvarchar", length: None, code_page })
            }
            _ => None,
        }
    }

    /// Returns the declaration of a variable that can be passed as an OUTPUT parameter of this type. For `json`, only a
    /// `json` variable can be passed, because SQL Server does not convert `json` to text implicitly. It converts a
    /// `vector` to and from text, and a text variable fits any number of dimensions.
    pub(super) fn variable_type(&self) -> String {
        match self {
            Self::Vector(_) => "nvarchar(max)".to_owned(),
            sql => sql.to_string(),
        }
    }

    /// Returns the declaration of a parameter in which the driver sends a value of this type.
    pub(super) fn parameter_type(&self) -> String {
        match self {
            Self::Json => "nvarchar(max)".to_owned(),
            sql => sql.variable_type(),
        }
    }

    /// Returns whether SQL Server has a built-in type with this name.
    pub(super) fn is_known(name: &str) -> bool {
        let code_page = CodePage::UNKNOWN;
        let described = TypeDescription { name, length: 0, precision: 0, scale: 0, code_page };
        !matches!(Self::new(described), Self::Other(_))
    }
}

/// Formats the type as in a declaration, for messages and for the variables of a statement.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bit => f.write_str("bit"),
            Self::TinyInt => f.write_str("tinyint"),
            Self::SmallInt => f.write_str("smallint"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Decimal { name, precision, scale } => write!(f, "{name}({precision}, {scale})"),
            Self::Money => f.write_str("money"),
            Self::SmallMoney => f.write_str("smallmoney"),
            Self::Real => f.write_str("real"),
            Self::Float => f.write_str("float"),
            Self::Text { name, length: None, .. } | Self::Binary { name, length: None } => {
                write!(f, "{name}(max)")
            }
            Self::Text { name, length: Some(length), .. }
            | Self::Binary { name, length: Some(length) } => write!(f, "{name}({length})"),
            Self::Date => f.write_str("date"),
            // 7 is the default, but Babelfish rejects an explicit 7.
            Self::Time(7) => f.write_str("time"),
            Self::DateTime2(7) => f.write_str("datetime2"),
            Self::DateTimeOffset(7) => f.write_str("datetimeoffset"),
            Self::Time(scale) => write!(f, "time({scale})"),
            Self::DateTime => f.write_str("datetime"),
            Self::SmallDateTime => f.write_str("smalldatetime"),
            Self::DateTime2(scale) => write!(f, "datetime2({scale})"),
            Self::DateTimeOffset(scale) => write!(f, "datetimeoffset({scale})"),
            Self::Guid => f.write_str("uniqueidentifier"),
            Self::Xml => f.write_str("xml"),
            Self::Json => f.write_str("json"),
            Self::Vector(_) => f.write_str("vector"),
            Self::Variant => f.write_str("sql_variant"),
            Self::Other(name) => f.write_str(name),
        }
    }
}
