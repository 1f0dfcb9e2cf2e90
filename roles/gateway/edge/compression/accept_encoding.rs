//! The `Accept-Encoding` header (RFC 9110 §12.5.3).

use http::{HeaderMap, header};

use crate::config::gateway::Coding;
use crate::quality_value;

/// The content codings that a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles::gateway) struct AcceptedCodings {
    /// The offered coding that the client prefers.
    pub(in crate::roles::gateway) coding: Option<Coding>,
    /// Whether the client accepts an unencoded body.
    pub(in crate::roles::gateway) identity: bool,
}

impl AcceptedCodings {
    /// Reads the headers of a request. Without `Accept-Encoding`, a body is sent unencoded.
    pub(in crate::roles::gateway) fn from_headers(headers: &HeaderMap, offered: &[Coding]) -> Self {
        let mut weights = CodingWeights::default();
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            // A value with non-ASCII bytes is treated as empty.
            value.to_str().unwrap_or_default().split(',').for_each(|item| weights.add(item));
        }
        let mut best: Option<(Coding, u16)> = None;
        for coding in offered {
            let weight = weights.get(*coding).unwrap_or(0);
            if weight > best.map_or(0, |(_, best)| best) {
                best = Some((*coding, weight));
            }
        }
        let identity = weights.identity.or(weights.any).unwrap_or(1);
        let wanted = best.filter(|(_, weight)| weights.identity.is_none_or(|own| *weight >= own));
        // A client that prefers an unencoded body gets one. A client that forbids an unencoded body gets the best coding.
        let coding = if identity == 0 { best } else { wanted };
        Self { coding: coding.map(|(coding, _)| coding), identity: identity > 0 }
    }

    /// Returns whether the client accepts any form in which a body can be sent.
    pub(in crate::roles::gateway) fn is_satisfiable(self) -> bool {
        self.identity || self.coding.is_some()
    }
}

/// The weights in the `Accept-Encoding` headers, in thousandths.
#[derive(Debug, Default)]
struct CodingWeights {
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    any: Option<u16>,
}

impl CodingWeights {
    fn add(&mut self, item: &str) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = quality_value::from_parameters(parts);
        // A coding with an invalid weight is ignored.
        let Some(weight) = weight else { return };
        let slot = match name.as_str() {
            "identity" => &mut self.identity,
            "*" => &mut self.any,
            // RFC 9110 §8.4.1.3: `x-gzip` is an old name for `gzip`.
            "gzip" | "x-gzip" => self.slot(Coding::Gzip),
            "br" => self.slot(Coding::Brotli),
            "zstd" => self.slot(Coding::Zstd),
            _ => return,
        };
        *slot = Some(weight);
    }

    fn slot(&mut self, coding: Coding) -> &mut Option<u16> {
        let [zstd, brotli, gzip] = &mut self.codings;
        match coding {
            Coding::Zstd => zstd,
            Coding::Brotli => brotli,
            Coding::Gzip => gzip,
        }
    }

    fn get(&mut self, coding: Coding) -> Option<u16> {
        let any = self.any;
        self.slot(coding).or(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_coding_that_it_prefers() {
        let check = |accept: &[&str], coding: Option<Coding>, identity: bool| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
            }
            let found = AcceptedCodings::from_headers(&headers, &Coding::ALL);
            assert_eq!(found, AcceptedCodings { coding, identity }, "{accept:?}");
        };
        let (zstd, br, gzip) = (Some(Coding::Zstd), Some(Coding::Brotli), Some(Coding::Gzip));
        check(&[], None, true);
        check(&[""], None, true);
        check(&["gzip"], gzip, true);
        check(&["x-gzip"], gzip, true);
        check(&["GZIP;Q=0.5"], gzip, true);
        check(&["gzip, deflate, br, zstd"], zstd, true);
        check(&["gzip, deflate, br"], br, true);
        check(&["gzip", "br"], br, true);
        check(&["gzip;q=1.0, br;q=0.9"], gzip, true);
        check(&["gzip;q=0.001"], gzip, true);
        check(&["gzip;q=0"], None, true);
        check(&["gzip;q=0.000"], None, true);
        check(&["*"], zstd, true);
        check(&["*, zstd;q=0"], br, true);
        check(&["identity"], None, true);
        check(&["identity;q=0"], None, false);
        check(&["identity;q=0, *"], zstd, false);
        check(&["*;q=0"], None, false);
        check(&["*;q=0, identity"], None, true);
        check(&["gzip, *;q=0"], gzip, false);
        check(&["gzip, identity;q=0"], gzip, false);
        check(&["identity;q=1, gzip;q=0.5"], None, true);
        check(&["identity;q=0.5, gzip;q=0.5"], gzip, true);
        check(&["deflate, compress"], None, true);
        check(&["gzip;q=2"], None, true);
        check(&["gzip;q=0.1234"], None, true);
        check(&["gzip;q="], None, true);
    }

    #[test]
    fn a_coding_that_is_not_offered_is_not_chosen() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, "zstd, gzip;q=0.1".parse().unwrap());
        let coding = |offered: &[Coding]| AcceptedCodings::from_headers(&headers, offered).coding;
        assert_eq!(coding(&[Coding::Gzip]), Some(Coding::Gzip));
        assert_eq!(coding(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_parsed_without_a_panic(text in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            let accepted = AcceptedCodings::from_headers(&headers, &Coding::ALL);
            proptest::prop_assert!(accepted.coding.is_some() || accepted.identity || text.contains('0'));
        }
    }
}
