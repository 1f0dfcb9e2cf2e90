//! The boxed future that the seams return, so that their traits can be used as objects.

use std::future::Future;
use std::pin::Pin;

/// A future on the heap. It costs 5–10 ns, nothing beside the network hop behind every seam.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
