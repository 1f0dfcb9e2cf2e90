//! NATS as the transport.
