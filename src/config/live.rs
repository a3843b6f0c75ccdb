//! Live presets: a stream that shows what a query answers.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units;

/// What a stream of the preset shows instead of events. Those of the preset's channels tell that it may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// A file with one query; `$1` is the organization.
    pub sql: PathBuf,
    /// Tags: what a stream filters on of each is a `text[]`, or null. From `$2` on.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// By which a client says how often, in milliseconds.
    #[serde(default)]
    pub parameter: Option<String>,
    /// How often where it does not, at most.
    #[serde(default = "interval", deserialize_with = "units::deserialize_duration")]
    pub interval: Duration,
    /// The shortest that a client may ask for.
    #[serde(default = "min_interval", deserialize_with = "units::deserialize_duration")]
    pub min_interval: Duration,
    /// Of a file that is part of the binary.
    #[serde(skip)]
    pub text: Option<&'static str>,
}

const fn interval() -> Duration {
    Duration::from_secs(30)
}

const fn min_interval() -> Duration {
    Duration::from_secs(5)
}

impl Live {
    /// Files that the reference domain's presets name.
    const REFERENCE: [(&'static str, &'static str); 1] =
        [("sql/live/heatmap.sql", include_str!("../../sql/live/heatmap.sql"))];

    /// Takes the file that is part of the binary, if it is one of those.
    pub(super) fn embed(&mut self) {
        let known = Self::REFERENCE.iter().find(|(name, _)| self.sql.as_os_str() == *name);
        self.text = known.map(|(_, text)| *text);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn every_query_of_the_reference_domain_is_part_of_the_binary() {
        let config = Config::reference();
        let live: Vec<_> = config.presets.iter().filter_map(|preset| preset.live.as_ref()).collect();
        assert_eq!(live.len(), 1);
        assert!(live.iter().all(|live| live.text.is_some_and(|text| text.contains("$1"))));
    }
}
