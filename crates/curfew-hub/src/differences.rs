//! Listeners that take a publication as its difference to the previous publication.
//!
//! A channel with such listeners remembers its last publication: the base of the next difference. A
//! listener gets the difference if it has received that base, and otherwise the whole publication.
//! The difference is made once per wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use curfew_model::{DataForm, Publication};
use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::wire::Frames;
use crate::{Hub, Member};

/// The listeners of a channel that take differences, and the channel's last publication.
#[derive(Debug, Default)]
pub(crate) struct DeltaListeners {
    /// The listeners by the slot of their member.
    listeners: IndexMap<u64, DeltaListener>,
    /// The data of the last publication, which is the base of the next difference. The lock is held
    /// while the next publication is queued.
    base: Mutex<Option<Bytes>>,
}

#[derive(Debug)]
struct DeltaListener {
    member: Arc<Member>,
    /// True if the listener has received the last publication. A broadcast changes this flag under
    /// the lock of [`DeltaListeners::base`].
    has_base: AtomicBool,
}

impl DeltaListeners {
    /// Adds a listener. `base` is the channel's newest publication, if the listener has received
    /// it.
    pub(crate) fn add(&mut self, member: &Arc<Member>, base: Option<&Publication>) {
        let has_base = base.is_some();
        if let Some(base) = base {
            let known = self.base.get_mut();
            if known.as_ref() != Some(&base.data) {
                // This is the first listener that takes differences, or a gap has intervened. No
                // other listener has received this base.
                self.listeners
                    .values_mut()
                    .for_each(|listener| *listener.has_base.get_mut() = false);
                *known = Some(base.data.clone());
            }
        }
        let listener = DeltaListener {
            member: Arc::clone(member),
            has_base: has_base.into(),
        };
        self.listeners.insert(member.slot, listener);
    }

    pub(crate) fn remove(&mut self, member: &Member) {
        self.listeners.swap_remove(&member.slot);
    }

    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }

    pub(crate) fn has(&self, member: &Member) -> bool {
        self.listeners.contains_key(&member.slot)
    }

    /// Visits each listener, in no order.
    pub(crate) fn each(&self, mut visit: impl FnMut(&Arc<Member>)) {
        for listener in self.listeners.values() {
            visit(&listener.member);
        }
    }
}

impl Hub {
    /// Queues a publication for listeners that take differences. `queue` queues a frame for one
    /// listener, and returns true if it is queued.
    #[cold]
    pub(crate) fn fan_out_differences(
        &self,
        listeners: &DeltaListeners,
        publication: &Publication,
        queue: &mut dyn FnMut(&Arc<Member>, Bytes) -> bool,
    ) {
        // The lock is held until the function returns. Otherwise two concurrent publications would
        // mix up their bases.
        let mut base = listeners.base.lock();
        let mut whole = Frames::new(self, |wire| wire.publication(publication, DataForm::Whole));
        let mut differences = Frames::new(self, |wire| {
            let difference = wire.difference(base.as_ref()?, &publication.data)?;
            wire.publication(publication, DataForm::Difference(&difference))
        });
        for DeltaListener { member, has_base } in listeners.listeners.values() {
            let wire = member.wire();
            let difference = match has_base.load(Ordering::Relaxed) {
                true => differences.of(wire),
                false => None,
            };
            let frame = difference.or_else(|| whole.of(wire));
            let is_queued = frame.is_some_and(|frame| queue(member, frame));
            has_base.store(is_queued, Ordering::Relaxed);
        }
        *base = Some(publication.data.clone());
    }
}
