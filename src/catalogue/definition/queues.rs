//! The queues of an endpoint as catalogue files define them.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// One of the queues of an endpoint with several queues: its weight, or an object with its settings.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Queue", untagged)]
pub enum QueueDefinition {
    /// The weight alone.
    Weight(Weight),
    /// The weight, and the settings that replace the endpoint's in this queue.
    Settings(QueueSettings),
}

/// The settings of one of the queues of an endpoint with several queues.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "QueueSettings")]
pub struct QueueSettings {
    /// The weight. Required.
    pub weight: Option<Weight>,
    /// The stored procedure that the queue's workers call. Default: the endpoint's `procedure`.
    pub procedure: Option<String>,
}

/// The share of the requests that a queue gets, relative to the weights of the other queues. A queue with a weight of 0 gets none.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(rename = "Weight")]
pub struct Weight(#[schemars(range(min = 0, max = 1_000_000))] pub u32);

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightVisitor;
        impl Visitor<'_> for WeightVisitor {
            type Value = Weight;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 1000000 as the weight")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Weight, E> {
                let too_large = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(Weight).map_err(too_large)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Weight, E> {
                Err(E::invalid_value(Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_any(WeightVisitor)
    }
}
