//! What can happen in the demo's world, and how often.

use fastrand::Rng;

/// One transaction of a back office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Devices(Devices),
    Lots(Lots),
    Activities(Activities),
    Issues(Issues),
    Properties(Properties),
    People(People),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Devices {
    Measures,
    Flips,
    Comes,
    Goes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lots {
    /// Seen at the gate and counted, in one transaction.
    CarPasses,
    /// Seen, but the count stays.
    CarIsSeen,
    AlertRises,
    AlertCloses,
    ViolationRises,
    ViolationCloses,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activities {
    Opens,
    Moves,
    IsAssigned,
    Goes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Issues {
    Opens,
    IsAssigned,
    IsRaised,
    IsResolved,
    Goes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Properties {
    IsRepriced,
    Moves,
    Comes,
    Goes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum People {
    IsNotified,
    Acts,
    JoinsOrLeaves,
    ChangesPlan,
    HearsOfMaintenance,
    EmitsProgress,
}

impl Deed {
    /// Each with its weight.
    pub(super) const ALL: [(Self, u32); 29] = [
        (Self::Devices(Devices::Measures), 30),
        (Self::Devices(Devices::Flips), 7),
        (Self::Devices(Devices::Comes), 1),
        (Self::Devices(Devices::Goes), 1),
        (Self::Lots(Lots::CarPasses), 18),
        (Self::Lots(Lots::CarIsSeen), 3),
        (Self::Lots(Lots::AlertRises), 3),
        (Self::Lots(Lots::AlertCloses), 3),
        (Self::Lots(Lots::ViolationRises), 2),
        (Self::Lots(Lots::ViolationCloses), 2),
        (Self::Activities(Activities::Opens), 4),
        (Self::Activities(Activities::Moves), 6),
        (Self::Activities(Activities::IsAssigned), 4),
        (Self::Activities(Activities::Goes), 2),
        (Self::Issues(Issues::Opens), 5),
        (Self::Issues(Issues::IsAssigned), 4),
        (Self::Issues(Issues::IsRaised), 2),
        (Self::Issues(Issues::IsResolved), 4),
        (Self::Issues(Issues::Goes), 3),
        (Self::Properties(Properties::IsRepriced), 5),
        (Self::Properties(Properties::Moves), 3),
        (Self::Properties(Properties::Comes), 1),
        (Self::Properties(Properties::Goes), 1),
        (Self::People(People::IsNotified), 4),
        (Self::People(People::Acts), 5),
        (Self::People(People::JoinsOrLeaves), 1),
        (Self::People(People::ChangesPlan), 1),
        (Self::People(People::HearsOfMaintenance), 1),
        (Self::People(People::EmitsProgress), 3),
    ];

    pub(super) fn pick(rng: &mut Rng) -> Self {
        let total = Self::ALL.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.u32(0..total);
        for (deed, weight) in Self::ALL {
            if left < weight {
                return deed;
            }
            left -= weight;
        }
        Self::Devices(Devices::Measures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_story() {
        let story = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..50).map(|_| Deed::pick(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(story(7), story(7));
        assert_ne!(story(7), story(8));
    }

    #[test]
    fn everything_happens_in_the_end() {
        let mut rng = Rng::with_seed(1);
        let story: Vec<Deed> = (0..5000).map(|_| Deed::pick(&mut rng)).collect();
        for (deed, _) in Deed::ALL {
            assert!(story.contains(&deed), "{deed:?}");
        }
    }
}
