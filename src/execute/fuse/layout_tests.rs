use proptest::prelude::*;

use super::*;

/// Every step of a piece as (target element, element of operand 0).
fn steps(piece: &Piece<()>) -> Vec<(u64, u64)> {
    let mut found = vec![(piece.target.offset, piece.operands[0].offset)];
    for (k, n) in piece.dims.iter().enumerate() {
        let (t, s) = (piece.target.strides[k], piece.operands[0].strides[k]);
        found =
            found.iter().flat_map(|(a, b)| (0..*n).map(move |i| (a + i * t, b + i * s))).collect();
    }
    found
}

fn all_steps(pieces: &[Piece<()>]) -> Vec<(u64, u64)> {
    let mut found: Vec<_> = pieces.iter().flat_map(steps).collect();
    found.sort_unstable();
    found
}

fn piece(dims: &[u64], target: (u64, &[u64]), operand: (u64, &[u64])) -> Piece<()> {
    let course = |(offset, strides): (u64, &[u64])| Course { offset, strides: strides.into() };
    Piece {
        dims: dims.into(),
        target: course(target),
        operands: smallvec![course(operand)],
        value: (),
    }
}

#[test]
fn an_aligned_run_refines_to_whole_rows_with_head_and_tail() {
    let mut out = Vec::new();
    refine(piece(&[25], (3, &[1]), (0, &[1])), Which::Target, &Axes::new(&[4, 10]), &mut out, 100)
        .unwrap();
    let shapes: Vec<_> = out.iter().map(|p| (p.target.offset, p.dims.clone())).collect();
    assert_eq!(shapes, [(3, smallvec![7]), (10, smallvec![10]), (20, smallvec![8])]);
    out.clear();
    refine(piece(&[40], (0, &[1]), (0, &[1])), Which::Target, &Axes::new(&[4, 10]), &mut out, 100)
        .unwrap();
    assert_eq!(out, [piece(&[4, 10], (0, &[10, 1]), (0, &[10, 1]))]);
}

#[test]
fn refining_that_needs_too_many_pieces_is_refused() {
    // A transpose of 101 x 103 read in rows of 7: nothing lines up.
    let turned = piece(&[101, 103], (0, &[1, 101]), (0, &[103, 1]));
    assert!(
        refine(turned.clone(), Which::Target, &Axes::new(&[1486, 7]), &mut Vec::new(), 10)
            .is_none()
    );
    let mut out = Vec::new();
    refine(turned.clone(), Which::Target, &Axes::new(&[101 * 103, 1]), &mut out, 10).unwrap();
    assert_eq!(out, [turned]);
}

#[test]
fn neighbours_join_into_one_run_and_equal_boxes_into_one_more_dim() {
    let mut pieces = vec![piece(&[4], (6, &[1]), (16, &[1])), piece(&[6], (0, &[1]), (10, &[1]))];
    tidy(&mut pieces);
    assert_eq!(pieces, [piece(&[10], (0, &[1]), (10, &[1]))]);
    let mut rows: Vec<_> = (0..5).map(|r| piece(&[3], (r * 3, &[1]), (r * 8, &[1]))).collect();
    tidy(&mut rows);
    assert_eq!(rows, [piece(&[5, 3], (0, &[3, 1]), (0, &[8, 1]))]);
    let mut apart = vec![piece(&[4], (0, &[1]), (9, &[1])), piece(&[5], (4, &[1]), (0, &[1]))];
    tidy(&mut apart);
    assert_eq!(apart.len(), 2);
}

/// A random permutation of a random shape, as one piece over its result's linear index.
fn turned() -> impl Strategy<Value = Piece<()>> {
    prop::collection::vec(1u64..6, 0..5)
        .prop_flat_map(|shape| {
            let dims: Vec<usize> = (0..shape.len()).collect();
            (Just(shape), Just(dims).prop_shuffle())
        })
        .prop_map(|(shape, dims)| {
            let result: Vec<u64> = dims.iter().map(|d| shape[*d]).collect();
            let (source, target) = (
                Shape::from(shape).contiguous_strides(),
                Shape::from(result.clone()).contiguous_strides(),
            );
            let kept: Vec<usize> = (0..result.len()).filter(|k| result[*k] > 1).collect();
            let mut piece = piece(
                &kept.iter().map(|k| result[*k]).collect::<Vec<_>>(),
                (0, &kept.iter().map(|k| target[*k]).collect::<Vec<_>>()),
                (0, &kept.iter().map(|k| source[dims[*k]]).collect::<Vec<_>>()),
            );
            piece.coalesce();
            piece
        })
}

/// A random shape of as many elements: repeatedly takes a divisor.
fn reshaped(numel: u64, picks: &[u64]) -> Vec<u64> {
    let mut left = numel;
    let mut shape = Vec::new();
    for pick in picks {
        let divisors: Vec<u64> = (1..=left).filter(|d| left.is_multiple_of(*d)).collect();
        let divisor = divisors[usize::try_from(*pick).unwrap() % divisors.len()];
        shape.push(divisor);
        left /= divisor;
    }
    shape.push(left);
    shape
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn refining_keeps_every_step_and_stays_inside_the_axes(piece in turned(), picks in prop::collection::vec(0u64..100, 0..3)) {
        let shape = reshaped(piece.volume(), &picks);
        let axes = Axes::new(&shape);
        let mut out = Vec::new();
        refine(piece.clone(), Which::Target, &axes, &mut out, MAX_PIECES).unwrap();
        prop_assert_eq!(all_steps(&out), all_steps(std::slice::from_ref(&piece)));
        for part in &out {
            // Moving the axes' strides is then the same as moving each coordinate.
            let strides: Vec<u64> = (0..shape.len()).map(|axis| 1000u64.pow(u32::try_from(axis).unwrap())).collect();
            let moved = Piece { target: axes.moved(&part.target, &strides, |_, at| at), ..part.clone() };
            let by_hand: Vec<u64> = steps(part).iter().map(|(t, _)| axes.coordinates(*t).zip(&strides).map(|(c, s)| c * s).sum()).collect();
            prop_assert_eq!(steps(&moved).iter().map(|(t, _)| *t).collect::<Vec<_>>(), by_hand);
        }
    }

    #[test]
    fn clipping_keeps_exactly_the_range(piece in turned(), picks in prop::collection::vec(0u64..100, 1..3), a in 0u64..40, b in 0u64..40) {
        let shape = reshaped(piece.volume(), &picks);
        let axes = Axes::new(&shape);
        let mut refined = Vec::new();
        refine(piece.clone(), Which::Target, &axes, &mut refined, MAX_PIECES).unwrap();
        for (axis, size) in shape.iter().enumerate() {
            let (low, high) = (a.min(b).min(*size), a.max(b).min(*size));
            let mut out = Vec::new();
            for part in &refined {
                clip(part.clone(), Which::Target, Cut::along(&axes, axis, (low, high)), &mut out, MAX_PIECES).unwrap();
            }
            let mut expected = all_steps(std::slice::from_ref(&piece));
            expected.retain(|(t, _)| (low..high).contains(&axes.coordinates(*t).nth(axis).unwrap()));
            prop_assert_eq!(all_steps(&out), expected);
        }
    }

    #[test]
    fn clipping_the_linear_index_needs_no_refining(piece in turned(), a in 0u64..400, b in 0u64..400) {
        let numel = piece.volume();
        let (low, high) = (a.min(b).min(numel), a.max(b).min(numel));
        let mut out = Vec::new();
        clip(piece.clone(), Which::Target, Cut::linear(numel, (low, high)), &mut out, MAX_PIECES).unwrap();
        let mut expected = all_steps(std::slice::from_ref(&piece));
        expected.retain(|(t, _)| (low..high).contains(t));
        prop_assert_eq!(all_steps(&out), expected);
    }

    #[test]
    fn tidying_keeps_every_step(piece in turned(), cuts in prop::collection::vec(0u64..400, 0..5)) {
        let numel = piece.volume();
        let mut bounds: Vec<u64> = cuts.iter().map(|cut| cut % (numel + 1)).chain([0, numel]).collect();
        bounds.sort_unstable();
        let mut parts = Vec::new();
        for pair in bounds.windows(2) {
            clip(piece.clone(), Which::Target, Cut::linear(numel, (pair[0], pair[1])), &mut parts, MAX_PIECES).unwrap();
        }
        parts.reverse();
        tidy(&mut parts);
        prop_assert_eq!(all_steps(&parts), all_steps(std::slice::from_ref(&piece)));
    }
}
