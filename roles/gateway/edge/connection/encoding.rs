//! Which content codings a client takes (RFC 9110 §12.5.3).

use http::{HeaderMap, header};

use crate::config::gateway::Coding;

/// What a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The coding that it likes best, of those that are offered.
    pub(super) coding: Option<Coding>,
    /// Whether it takes a body as it is.
    pub(super) identity: bool,
}

impl Accepted {
    /// What the request's headers say. Without `Accept-Encoding` a body is sent as it is.
    pub(super) fn of(headers: &HeaderMap, offered: &[Coding]) -> Self {
        let mut weights = Weights::default();
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            // What is not text says nothing that we could go by.
            value.to_str().unwrap_or_default().split(',').for_each(|item| weights.add(item));
        }
        let mut best: Option<(Coding, u16)> = None;
        for coding in offered {
            let weight = weights.of(*coding).unwrap_or(0);
            if weight > best.map_or(0, |(_, best)| best) {
                best = Some((*coding, weight));
            }
        }
        let identity = weights.identity.or(weights.any).unwrap_or(1);
        let wanted = best.filter(|(_, weight)| weights.identity.is_none_or(|own| *weight >= own));
        // Whoever likes a body better as it is gets it so, and another only when that is impossible.
        let coding = if identity == 0 { best } else { wanted };
        Self { coding: coding.map(|(coding, _)| coding), identity: identity > 0 }
    }

    /// Whether any body can be sent at all.
    pub(super) fn is_possible(self) -> bool {
        self.identity || self.coding.is_some()
    }
}

/// Weights in thousandths, of what was named.
#[derive(Debug, Default)]
struct Weights {
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    any: Option<u16>,
}

impl Weights {
    fn add(&mut self, item: &str) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts
            .filter_map(|part| part.split_once('='))
            .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
            .map_or(Some(1000), |(_, text)| thousandths(text.trim()));
        // A weight that cannot be read asks for nothing.
        let Some(weight) = weight else { return };
        let place = match name.as_str() {
            "identity" => &mut self.identity,
            "*" => &mut self.any,
            // RFC 9110 §8.4.1.3: an old name of the same.
            "gzip" | "x-gzip" => self.place(Coding::Gzip),
            "br" => self.place(Coding::Brotli),
            "zstd" => self.place(Coding::Zstd),
            _ => return,
        };
        *place = Some(weight);
    }

    fn place(&mut self, coding: Coding) -> &mut Option<u16> {
        let [zstd, brotli, gzip] = &mut self.codings;
        match coding {
            Coding::Zstd => zstd,
            Coding::Brotli => brotli,
            Coding::Gzip => gzip,
        }
    }

    fn of(&mut self, coding: Coding) -> Option<u16> {
        let any = self.any;
        self.place(coding).or(any)
    }
}

/// A weight (RFC 9110 §12.4.2): 0 to 1 with at most three digits behind the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_short = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let fraction = is_short.then(|| format!("{fraction:0<3}"))?.parse::<u16>().ok()?;
    match (whole, fraction) {
        ("0", _) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_likes_best() {
        let check = |accept: &[&str], coding: Option<Coding>, identity: bool| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
            }
            let found = Accepted::of(&headers, &Coding::ALL);
            assert_eq!(found, Accepted { coding, identity }, "{accept:?}");
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
    fn what_is_not_offered_is_not_chosen() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, "zstd, gzip;q=0.1".parse().unwrap());
        let coding = |offered: &[Coding]| Accepted::of(&headers, offered).coding;
        assert_eq!(coding(&[Coding::Gzip]), Some(Coding::Gzip));
        assert_eq!(coding(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(text in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            let accepted = Accepted::of(&headers, &Coding::ALL);
            proptest::prop_assert!(accepted.coding.is_some() || accepted.identity || text.contains('0'));
        }
    }
}
