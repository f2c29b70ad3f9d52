//! Addresses and networks in the form of `server.trusted_proxies`.

use std::net::IpAddr;

use crate::listeners::UNIX_PEER;

/// A network. A single address is a network whose prefix covers all bits of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Parses an address such as `192.0.2.1`, a network such as `10.0.0.0/8` or `2001:db8::/32`, or
    /// `unix`. The error is the rest of a sentence whose subject is `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "unix" {
            return Ok(Self {
                address: UNIX_PEER,
                prefix: 32,
            });
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(
            |_| "is neither an address such as 192.0.2.1 nor a network such as 10.0.0.0/8",
        )?;
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let prefix = match prefix {
            None => bits,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= bits && digits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or("has no valid prefix: write the number of bits after the slash")?,
        };
        let network = Self { address, prefix };
        match network.masked(address) == Some(bits_of(address).0) {
            true => Ok(network),
            false => Err("has bits set after its prefix: write the network's first address"),
        }
    }

    /// True if the network contains `address`. An IPv4 address in IPv6 form counts as IPv4.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let masked = self.masked(address.to_canonical());
        masked.is_some_and(|masked| masked == bits_of(self.address).0)
    }

    /// Returns the bits of `address` that the prefix covers; `None` if `address` is of another
    /// family than the network.
    fn masked(&self, address: IpAddr) -> Option<u128> {
        let (value, bits) = bits_of(address);
        let (_, own) = bits_of(self.address);
        let shift = bits.checked_sub(self.prefix)?;
        let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
        (bits == own).then_some(value & mask)
    }
}

fn bits_of(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
            ("::1", "::1", true),
            ("unix", "0.0.0.0", true),
            ("unix", "127.0.0.1", false),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                holds,
                "{network:?} {address}"
            );
        }
        for bad in [
            "",
            "proxy",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "10.0.0",
        ] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
