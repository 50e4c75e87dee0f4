//! Memory of tensors that Python holds, by its address: what is read goes straight into a model's own
//! tensors, and what is written comes straight from them.
//!
//! An address is a number here, so this is the one place of the module that has to trust its
//! caller: `python/regraft/_memory.py` takes addresses from tensors, and holds these meanwhile.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Where a tensor lies, from its first to its last element: the address, and how many bytes.
pub(crate) type Place = (usize, usize);

/// The memory of some tensors, to be written; `None` if two have a byte in common, or one is at no
/// address.
pub(crate) fn writable<T>(places: &[Place], work: impl FnOnce(Vec<&mut [u8]>) -> T) -> Option<T> {
    let mut sorted: Vec<Place> = places.iter().copied().filter(|(_, len)| *len > 0).collect();
    sorted.sort_unstable();
    let apart =
        |pair: &[Place]| pair[0].0.checked_add(pair[0].1).is_some_and(|end| end <= pair[1].0);
    if !sorted.windows(2).all(apart) {
        return None;
    }
    let slices = places.iter().map(|place| {
        let (start, len) = start(*place)?;
        // SAFETY: The package gives the address of a tensor that it holds until this returns, and
        // the bytes from its first to its last element, all of which are the tensor's storage. No
        // two slices have a byte in common, as was looked at above. That nothing else writes there
        // meanwhile is what anybody who reads into a tensor answers for.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) })
    });
    slices.collect::<Option<Vec<&mut [u8]>>>().map(work)
}

/// The memory of some tensors, to be read; `None` if one is at no address.
pub(crate) fn readable<T>(places: &[Place], work: impl FnOnce(Vec<&[u8]>) -> T) -> Option<T> {
    let slices = places.iter().map(|place| {
        let (start, len) = start(*place)?;
        // SAFETY: As above, and memory that is only read may be read twice. A model that is trained
        // on while it is saved gives torn tensors whoever saves it: `async_save` copies it first.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
    });
    slices.collect::<Option<Vec<&[u8]>>>().map(work)
}

/// A tensor without elements may be at no address.
fn start((address, len): Place) -> Option<(NonNull<u8>, usize)> {
    if len == 0 {
        return Some((NonNull::dangling(), 0));
    }
    let len = isize::try_from(len).ok()?.unsigned_abs();
    address.checked_add(len)?;
    NonNull::new(std::ptr::with_exposed_provenance_mut(address)).map(|start| (start, len))
}
