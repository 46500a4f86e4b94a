//! The allocator of the programs: a program makes it its own with `#[global_allocator]`. It stands for `malloc` too, so that SQLite
//! shares it.
//!
//! A registration leaves little behind among much that is gone a minute later. The system's allocator gives none of that back, for
//! something small lives on nearly every page; jemalloc puts sizes together and returns what is empty.

// Its settings have to be there before anything runs: a symbol that it looks for.
#![allow(unsafe_code)]

pub use tikv_jemallocator::Jemalloc as Allocator;

/// One arena, because one thread does nearly all the work; what is free for a second goes back, by a thread beside the others.
/// `MALLOC_CONF` in the environment has the last word.
#[used]
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name that jemalloc gives it")]
static malloc_conf: Settings =
    Settings(c"narenas:1,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr());

#[repr(transparent)]
struct Settings(*const std::ffi::c_char);

// SAFETY: it points to a constant.
unsafe impl Sync for Settings {}

#[cfg(test)]
mod tests {
    use std::ffi::{c_char, c_int, c_void};

    #[global_allocator]
    static ALLOCATOR: super::Allocator = super::Allocator;

    unsafe extern "C" {
        fn mallctl(
            name: *const c_char,
            old: *mut c_void,
            old_length: *mut usize,
            new: *mut c_void,
            new_length: usize,
        ) -> c_int;
    }

    #[test]
    fn its_settings_are_found() {
        let (mut arenas, mut length) = (0_u32, size_of::<u32>());
        let (name, place) = (c"opt.narenas", (&raw mut arenas).cast());
        // SAFETY: an unsigned number is read into one.
        let failed = unsafe { mallctl(name.as_ptr(), place, &mut length, std::ptr::null_mut(), 0) };
        assert_eq!((failed, arenas), (0, 1));
    }
}
