//! Which objects of an image, and which images, become rows.

use super::dataset::DatasetObject;
use super::python_random::PythonRandom;
use super::report::Reason;

/// Which images become rows, and with which of their objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Images with exactly one object.
    Single,
    /// Images with two objects or more: the two largest, the larger one first.
    Multi,
    /// All images that have objects, with all of them.
    All,
}

impl Split {
    /// Returns the objects of a row, at most `most` of them, and those that are left out with the reason.
    ///
    /// # Errors
    /// The reason to leave the image out.
    pub(super) fn of(self, objects: &[DatasetObject], most: usize) -> Result<Selected<'_>, Reason> {
        let largest = || {
            let mut order: Vec<_> = (0..objects.len()).collect();
            // Ties go to the lower id. An annotation without an id comes after those that have one, as in the file.
            order.sort_by(|&a, &b| {
                let (left, right) = (&objects[a], &objects[b]);
                let ids = || (left.id.is_none(), &left.id).cmp(&(right.id.is_none(), &right.id));
                right.area.total_cmp(&left.area).then_with(ids)
            });
            order
        };
        let pick = |order: &[usize]| order.iter().map(|&i| &objects[i]).collect();
        match (self, objects.len()) {
            (_, 0) => Err(Reason::NoObjects),
            (Split::Single, 2..) => Err(Reason::SeveralObjects),
            (Split::Multi, 1) => Err(Reason::OneObject),
            (Split::Multi, _) => {
                let order = largest();
                let (kept, left) = order.split_at(2);
                Ok(Selected { kept: pick(kept), left_out: pick(left), reason: Reason::NotLargest })
            }
            (Split::Single | Split::All, count) => {
                let order = largest();
                let (kept, left) = order.split_at(count.min(most));
                let mut kept = kept.to_vec();
                kept.sort_unstable();
                Ok(Selected { kept: pick(&kept), left_out: pick(left), reason: Reason::TooMany })
            }
        }
    }
}

/// The objects of a row.
pub(super) struct Selected<'a> {
    pub kept: Vec<&'a DatasetObject>,
    pub left_out: Vec<&'a DatasetObject>,
    /// Why they are left out.
    pub reason: Reason,
}

/// A part of the rows, drawn at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How many.
    pub count: usize,
    /// The seed of the draw.
    pub seed: u64,
}

impl Sample {
    /// Returns which of `n` items are in the sample: those of Python's `random.Random(seed).sample(range(n), count)`, in
    /// ascending order.
    pub(super) fn indices(self, n: usize) -> Vec<usize> {
        let mut indices = PythonRandom::new(self.seed).sample(n, self.count);
        indices.sort_unstable();
        indices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Id;

    fn objects(list: &[(Option<u64>, f64)]) -> Vec<DatasetObject> {
        let object = |&(id, area): &(Option<u64>, f64)| DatasetObject {
            id: id.map(Id::Number),
            phrase: "x".into(),
            bounds: [0.0, 0.0, 1.0, 1.0],
            area,
        };
        list.iter().map(object).collect()
    }

    fn kept(split: Split, most: usize, list: &[(Option<u64>, f64)]) -> Result<Vec<Option<u64>>, Reason> {
        let objects = objects(list);
        let number = |object: &&DatasetObject| match object.id {
            Some(Id::Number(id)) => Some(id),
            _ => None,
        };
        split.of(&objects, most).map(|selected| selected.kept.iter().map(number).collect())
    }

    #[test]
    fn splits_select_by_number_area_and_id() {
        let (one, two) = (&[(Some(1), 5.0)][..], &[(Some(1), 5.0), (Some(2), 6.0)][..]);
        assert_eq!(kept(Split::Single, 30, one), Ok(vec![Some(1)]));
        assert_eq!(kept(Split::Single, 30, two), Err(Reason::SeveralObjects));
        assert_eq!(kept(Split::Multi, 30, one), Err(Reason::OneObject));
        assert_eq!(kept(Split::Multi, 30, two), Ok(vec![Some(2), Some(1)]));
        assert_eq!(kept(Split::All, 30, two), Ok(vec![Some(1), Some(2)]));
        let ties = [(None, 5.0), (Some(9), 5.0), (Some(3), 5.0), (Some(4), 1.0)];
        assert_eq!(kept(Split::Multi, 30, &ties), Ok(vec![Some(3), Some(9)]));
        assert_eq!(kept(Split::All, 3, &ties), Ok(vec![None, Some(9), Some(3)]));
        for split in [Split::Single, Split::Multi, Split::All] {
            assert_eq!(kept(split, 30, &[]), Err(Reason::NoObjects));
        }
    }
}
