//! Ascending places as their distances: 2 bytes a place, and 2 more for every 65,535 slots without one.

/// The distance that leads to no place.
const FAR: u16 = u16::MAX;

/// Places, counted from the start of a region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    distances: Vec<u16>,
    /// The last place.
    last: usize,
}

impl List {
    /// With room for about so many places.
    pub fn with_capacity(places: usize) -> Self {
        Self { distances: Vec::with_capacity(places), last: 0 }
    }

    /// Notes a place, not below the last one.
    #[inline]
    pub fn push(&mut self, place: usize) {
        let mut distance = place - self.last;
        while distance >= usize::from(FAR) {
            self.distances.push(FAR);
            distance -= usize::from(FAR);
        }
        self.distances.push(u16::try_from(distance).unwrap_or_default());
        self.last = place;
    }

    /// Gives back memory that no place needs, where it is much.
    pub fn shrink(&mut self) {
        if self.distances.capacity() > self.distances.len() / 4 * 5 {
            self.distances.shrink_to_fit();
        }
    }

    /// Hands out the places in order; `ahead` hears of each some places earlier.
    #[inline]
    pub fn for_each(&self, mut ahead: impl FnMut(usize), mut each: impl FnMut(usize)) {
        let mut scout = self.places();
        scout.by_ref().take(AHEAD).for_each(&mut ahead);
        for place in self.places() {
            if let Some(place) = scout.next() {
                ahead(place);
            }
            each(place);
        }
    }

    #[inline]
    fn places(&self) -> impl Iterator<Item = usize> {
        let mut place = 0;
        self.distances.iter().filter_map(move |&distance| {
            place += usize::from(distance);
            (distance != FAR).then_some(place)
        })
    }
}

/// How many places ahead are announced.
const AHEAD: usize = 12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_come_back_however_far_apart(
            distances in prop::collection::vec(prop_oneof![0_usize..5, 65_530_usize..65_540, 1_usize..400_000], 0..60),
        ) {
            let mut list = List::default();
            let mut expected = Vec::new();
            let mut place = 0;
            for distance in distances {
                place += distance;
                expected.push(place);
                list.push(place);
            }
            let (mut announced, mut places) = (Vec::new(), Vec::new());
            list.for_each(|place| announced.push(place), |place| places.push(place));
            prop_assert_eq!(&announced, &expected);
            prop_assert_eq!(&places, &expected);
        }
    }
}
