//! One kernel: copies elements from one strided layout to another.
//!
//! Both sides are bounds-checked before the first element moves, so hostile strides are a refusal
//! and never a panic.

/// One dimension of a copy: how many steps, and how far each step goes on either side, in elements.
#[derive(Clone, Copy, Debug)]
struct Dim {
    len: usize,
    src: usize,
    dst: usize,
}

/// Two crossing dimensions are walked in blocks of so many elements along the source's unit step
/// and along the target's. Tall and narrow: the target's rows are often a power of two apart, so
/// that their lines compete for few places of the cache, and a narrow block touches few of them at
/// a time.
const NARROW: usize = 16;
const TALL: usize = 256;

/// Side of the tile that is transposed at once.
const TILE: usize = 8;

/// Copies the elements of a box of `dims` from `src` to `dst`; strides are in elements of `size`
/// bytes (1, 2, 4 or 8), and both sides begin with the first element. `None` if either side is too
/// short or the size is another; nothing is copied then.
pub(crate) fn copy(
    dims: &[u64],
    size: usize,
    src: &[u8],
    src_strides: &[u64],
    dst: &mut [u8],
    dst_strides: &[u64],
) -> Option<()> {
    if dims.contains(&0) {
        return Some(());
    }
    let within = |strides: &[u64], len: usize| -> Option<()> {
        let last = dims
            .iter()
            .zip(strides)
            .try_fold(0u64, |sum, (n, stride)| sum.checked_add((n - 1).checked_mul(*stride)?))?;
        let end = last.checked_add(1)?.checked_mul(size as u64)?;
        (end <= len as u64).then_some(())
    };
    within(src_strides, src.len())?;
    within(dst_strides, dst.len())?;
    let mut order = Vec::with_capacity(dims.len());
    for ((n, s), d) in dims.iter().zip(src_strides).zip(dst_strides) {
        if *n > 1 {
            order.push(Dim {
                len: usize::try_from(*n).ok()?,
                src: usize::try_from(*s).ok()?,
                dst: usize::try_from(*d).ok()?,
            });
        }
    }
    order.sort_by_key(|dim| std::cmp::Reverse((dim.dst, dim.src)));
    let order = merge(order);
    match size {
        1 => walk::<1>(order, src, dst),
        2 => walk::<2>(order, src, dst),
        4 => walk::<4>(order, src, dst),
        8 => walk::<8>(order, src, dst),
        _ => return None,
    }
    Some(())
}

/// Joins neighbouring dimensions that both sides step through as one.
fn merge(order: Vec<Dim>) -> Vec<Dim> {
    let mut merged: Vec<Dim> = Vec::with_capacity(order.len());
    for dim in order {
        match merged.last_mut() {
            Some(last) if last.src == dim.src * dim.len && last.dst == dim.dst * dim.len => {
                *last = Dim { len: last.len * dim.len, ..dim };
            }
            _ => merged.push(dim),
        }
    }
    merged
}

/// Walks the outer dimensions and copies the innermost one (or the square of the two that cross) at
/// each place.
fn walk<const N: usize>(mut order: Vec<Dim>, src: &[u8], dst: &mut [u8]) {
    let Some(inner) = order.pop() else {
        dst[..N].copy_from_slice(&src[..N]);
        return;
    };
    // Where the source's unit stride is another dimension than the target's, the two are walked
    // together in squares; not where elements are repeated, which is one run of the target for each.
    let crossing = if inner.src <= 1 {
        None
    } else {
        order.iter().position(|dim| dim.src == 1).map(|at| order.remove(at))
    };
    let mut index = vec![0usize; order.len()];
    loop {
        let at = |step: fn(&Dim) -> usize| {
            index.iter().zip(&order).map(|(i, dim)| i * step(dim)).sum::<usize>()
        };
        let (s, d) = (at(|dim| dim.src), at(|dim| dim.dst));
        match crossing {
            Some(cross) => squares::<N>(cross, inner, &src[s * N..], &mut dst[d * N..]),
            None => line::<N>(inner, &src[s * N..], &mut dst[d * N..]),
        }
        let mut dim = order.len();
        loop {
            if dim == 0 {
                return;
            }
            dim -= 1;
            index[dim] += 1;
            if index[dim] < order[dim].len {
                break;
            }
            index[dim] = 0;
        }
    }
}

fn line<const N: usize>(dim: Dim, src: &[u8], dst: &mut [u8]) {
    if dim.src == 1 && dim.dst == 1 {
        dst[..dim.len * N].copy_from_slice(&src[..dim.len * N]);
        return;
    }
    if let (0, 1, Some(element)) = (dim.src, dim.dst, src.first_chunk::<N>()) {
        dst[..dim.len * N].as_chunks_mut::<N>().0.fill(*element);
        return;
    }
    for i in 0..dim.len {
        let (s, d) = (i * dim.src * N, i * dim.dst * N);
        dst[d..d + N].copy_from_slice(&src[s..s + N]);
    }
}

/// Copies where `a` is the unit step of the source and `b` the small one of the target: by squares,
/// which stay in the cache, and those by tiles of 8 x 8, which stay in registers.
fn squares<const N: usize>(a: Dim, b: Dim, src: &[u8], dst: &mut [u8]) {
    for j0 in (0..b.len).step_by(TALL) {
        for i0 in (0..a.len).step_by(NARROW) {
            let (i1, j1) = ((i0 + NARROW).min(a.len), (j0 + TALL).min(b.len));
            // Whole tiles, then what is left of the square at its right and lower edge.
            let whole = |from: usize, to: usize| {
                if b.dst == 1 { from + (to - from) / TILE * TILE } else { from }
            };
            let (i2, j2) = (whole(i0, i1), whole(j0, j1));
            for i in (i0..i2).step_by(TILE) {
                for j in (j0..j2).step_by(TILE) {
                    tile::<N>(
                        &src[(i + j * b.src) * N..],
                        b.src * N,
                        &mut dst[(i * a.dst + j) * N..],
                        a.dst * N,
                    );
                }
            }
            for i in i0..i1 {
                for j in if i < i2 { j2 } else { j0 }..j1 {
                    let (s, d) = ((i + j * b.src) * N, (i * a.dst + j * b.dst) * N);
                    dst[d..d + N].copy_from_slice(&src[s..s + N]);
                }
            }
        }
    }
}

/// Transposes one tile; pitches are in bytes.
fn tile<const N: usize>(src: &[u8], src_pitch: usize, dst: &mut [u8], dst_pitch: usize) {
    let mut rows = [[[0u8; N]; TILE]; TILE];
    for (j, row) in rows.iter_mut().enumerate() {
        let from = &src[j * src_pitch..];
        row.copy_from_slice(from[..TILE * N].as_chunks::<N>().0);
    }
    for i in 0..TILE {
        let line: [[u8; N]; TILE] = std::array::from_fn(|j| rows[j][i]);
        let to = &mut dst[i * dst_pitch..];
        to[..TILE * N].as_chunks_mut::<N>().0.copy_from_slice(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_every_size_across_tile_and_square_edges() {
        let (rows, cols) = (67usize, 41usize);
        for size in [1, 2, 4, 8] {
            // Elements that differ from their neighbours in every byte; `gap` leaves every other
            // place of the target alone.
            let src: Vec<u8> =
                (0..rows * cols * size).map(|i| (i * 37 % 251).to_le_bytes()[0]).collect();
            for gap in [1, 2] {
                let mut dst = vec![0xee; src.len() * gap];
                let strides = [(rows * gap) as u64, gap as u64];
                copy(
                    &[cols as u64, rows as u64],
                    size,
                    &src,
                    &[1, cols as u64],
                    &mut dst,
                    &strides,
                )
                .unwrap();
                for (at, element) in dst.chunks(size).enumerate() {
                    let (c, r) = (at / gap / rows, at / gap % rows);
                    let expected = if at % gap == 0 {
                        &src[(r * cols + c) * size..][..size]
                    } else {
                        &[0xee; 8][..size]
                    };
                    assert_eq!(element, expected, "size {size}, gap {gap}, row {r}, column {c}");
                }
            }
        }
    }

    #[test]
    fn broadcasts_with_a_zero_stride() {
        let mut dst = vec![0; 6];
        copy(&[3, 2], 1, &[7, 9], &[0, 1], &mut dst, &[2, 1]).unwrap();
        assert_eq!(dst, [7, 9, 7, 9, 7, 9]);
    }

    #[test]
    fn refuses_what_leaves_either_side() {
        assert!(copy(&[3], 2, &[0; 5], &[1], &mut [0; 6], &[1]).is_none());
        assert!(copy(&[3], 2, &[0; 6], &[1], &mut [0; 6], &[2]).is_none());
        assert!(copy(&[2], 4, &[0; 8], &[u64::MAX], &mut [0; 8], &[1]).is_none());
        assert!(copy(&[1], 3, &[0; 8], &[1], &mut [0; 8], &[1]).is_none());
        assert!(copy(&[0, 9], 2, &[], &[1, 1], &mut [], &[1, 1]).is_some());
    }
}
