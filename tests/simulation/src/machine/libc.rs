//! Replacements for functions of the C library, and processes.
//!
//! This is the only unsafe code of the project. The linker prefers a function of the program to a
//! function of a shared library with the same name. All code that asks for time or randomness by
//! these names therefore calls the functions here, including the standard library and the gateway's
//! dependencies. On threads that are not simulated, the functions ask the kernel, as the C library
//! would.

#![expect(unsafe_code, reason = "functions with the C library's names, and fork")]

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;
use std::{io, process, slice};

use libc::{clockid_t, pid_t, size_t, ssize_t, timespec};

use super::{Clock, fill, shows};

#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let which = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(Clock::Wall),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME => Some(Clock::Monotonic),
        _ => None,
    };
    let Some(shown) = which.and_then(shows) else {
        // SAFETY: the arguments are the caller's own.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock as c_long, time) as c_int };
    };
    // SAFETY: the caller passes memory for the time, as POSIX requires.
    unsafe {
        time.write(timespec {
            tv_sec: shown.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: shown.subsec_nanos().into(),
        });
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn getrandom(bytes: *mut c_void, count: size_t, flags: c_uint) -> ssize_t {
    // SAFETY: the caller passes memory for `count` bytes.
    if count > 0 && fill(unsafe { slice::from_raw_parts_mut(bytes.cast::<u8>(), count) }) {
        return count.try_into().unwrap_or(ssize_t::MAX);
    }
    // SAFETY: the arguments are the caller's own.
    unsafe { libc::syscall(libc::SYS_getrandom, bytes, count, flags) as ssize_t }
}

/// A separate process that runs one function.
#[derive(Debug)]
pub struct Child {
    pid: pid_t,
    result: File,
}

/// Runs `work` in a copy of this process. Each run thus begins with the same global state, and a
/// run cannot damage the next. This process must have only one thread.
pub fn run_apart(work: impl FnOnce() -> Vec<u8>) -> io::Result<Child> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors were opened just now, and nothing else owns them.
    let [read, write] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    // SAFETY: there is no other thread that could hold a lock.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            let result = work();
            let written = File::from(write).write_all(&result);
            process::exit(i32::from(written.is_err()));
        }
        pid => Ok(Child {
            pid,
            result: File::from(read),
        }),
    }
}

impl Child {
    /// The function's result; `None` if the process ended without a result, or ran for longer than
    /// `patience`.
    pub fn result(mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let mut waited = libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(&self.result),
            events: libc::POLLIN,
            revents: 0,
        };
        let patience = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the list has one descriptor, which is open.
        let ready = unsafe { libc::poll(&raw mut waited, 1, patience) };
        if ready == 0 {
            // SAFETY: the child has not been waited for, so its id is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
        let mut result = Vec::new();
        self.result.read_to_end(&mut result)?;
        let mut status = 0;
        // SAFETY: `status` outlives the call, which writes nothing else.
        if unsafe { libc::waitpid(self.pid, &raw mut status, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((status == 0).then_some(result))
    }
}
