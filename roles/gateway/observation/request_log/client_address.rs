//! A client's address in an access line.

use std::fmt;
use std::net::IpAddr;

/// An address that is displayed exactly as `IpAddr` displays it, but faster for IPv4. The standard
/// implementation handles all format options for each octet.
pub(super) struct ClientAddress(pub(super) IpAddr);

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IpAddr::V4(address) = self.0 else { return self.0.fmt(f) };
        let mut digits = itoa::Buffer::new();
        for (index, octet) in address.octets().into_iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            f.write_str(digits.format(octet))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_address_is_formatted_like_its_display(v4: u32, v6: u128) {
            for address in [IpAddr::from(v4.to_be_bytes()), IpAddr::from(v6.to_be_bytes())] {
                proptest::prop_assert_eq!(ClientAddress(address).to_string(), address.to_string());
            }
        }
    }
}
