//! Anonymous sessions, counted by the address of the client, because they have no user to count by.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The number of the node's anonymous sessions for each group of addresses.
#[derive(Debug, Default)]
pub(crate) struct AnonymousSessions(Mutex<HashMap<IpAddr, u32>>);

/// The permit of one anonymous session, returned on drop.
#[derive(Debug)]
pub(crate) struct AnonymousPlace {
    sessions: Arc<AnonymousSessions>,
    group: IpAddr,
}

impl AnonymousSessions {
    /// Takes a permit for one more session of this address. Returns `None` if the address's group
    /// already has `most` permits; if `most` is 0, there is no limit.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AnonymousPlace> {
        let group = address_group(address);
        let mut counts = self.0.lock();
        let count = counts.entry(group).or_default();
        if most != 0 && *count >= most {
            return None;
        }
        *count += 1;
        Some(AnonymousPlace {
            sessions: Arc::clone(self),
            group,
        })
    }
}

impl Drop for AnonymousPlace {
    fn drop(&mut self) {
        let mut counts = self.sessions.0.lock();
        if let Some(count) = counts.get_mut(&self.group) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.group);
            }
        }
    }
}

/// Returns the group of `address`. All addresses of a group share one count. An IPv4 address is a
/// group of its own. The group of an IPv6 address is its /64, because a customer of an IPv6
/// provider has at least a /64.
pub fn address_group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_for_an_address_and_given_back() {
        let sessions: Arc<AnonymousSessions> = Arc::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = sessions.enter(address("192.0.2.1"), 2);
        let second = sessions.enter(address("::ffff:192.0.2.1"), 2);
        assert!(first.is_some() && second.is_some());
        assert!(sessions.enter(address("192.0.2.1"), 2).is_none());
        assert!(sessions.enter(address("192.0.2.1"), 0).is_some());
        let other = sessions.enter(address("2001:db8::1"), 1);
        assert!(sessions.enter(address("2001:db8::2"), 1).is_none());
        drop((first, other));
        assert!(sessions.enter(address("192.0.2.1"), 2).is_some());
        assert!(sessions.enter(address("2001:db8::2"), 1).is_some());
        drop(second);
        assert!(sessions.0.lock().is_empty());
    }
}
