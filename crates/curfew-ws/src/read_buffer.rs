//! One read buffer for each worker thread, so that an idle connection holds no read buffer.

use std::cell::Cell;

/// Number of bytes that one read can return. A loopback or a fast link delivers about this number
/// of bytes per wake-up. The buffer fits into a core's cache.
pub const READ_BUFFER_BYTES: usize = 16 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends this thread's buffer of [`READ_BUFFER_BYTES`] bytes to `f`. The buffer still holds data of
/// earlier reads. A nested call gets a buffer of its own.
pub fn with_read_buffer<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = BUFFER.take();
    if buffer.is_empty() {
        buffer = vec![0; READ_BUFFER_BYTES];
    }
    let result = f(&mut buffer);
    BUFFER.set(buffer);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_reused_and_a_nested_call_gets_another() {
        let first = with_read_buffer(|outer| {
            outer.fill(1);
            let inner = with_read_buffer(|inner| {
                inner.fill(2);
                inner.as_ptr() as usize
            });
            assert!(outer.iter().all(|byte| *byte == 1));
            assert_eq!(outer.len(), READ_BUFFER_BYTES);
            assert_ne!(outer.as_ptr() as usize, inner);
            outer.as_ptr() as usize
        });
        assert_eq!(with_read_buffer(|again| again.as_ptr() as usize), first);
    }
}
