//! A client's address as an access line tells it.

use std::fmt;
use std::net::IpAddr;

/// Writes an address as its own `Display` does. That sends each part of an IPv4 address through all that the format of a
/// number may ask for.
pub(super) struct Client(pub(super) IpAddr);

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IpAddr::V4(address) = self.0 else { return self.0.fmt(f) };
        let mut digits = itoa::Buffer::new();
        for (place, part) in address.octets().into_iter().enumerate() {
            if place > 0 {
                f.write_str(".")?;
            }
            f.write_str(digits.format(part))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_address_is_written_as_it_writes_itself(v4: u32, v6: u128) {
            for address in [IpAddr::from(v4.to_be_bytes()), IpAddr::from(v6.to_be_bytes())] {
                proptest::prop_assert_eq!(Client(address).to_string(), address.to_string());
            }
        }
    }
}
