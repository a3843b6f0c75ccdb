//! Values as a type reads them, at random.

use proptest::prelude::*;

pub(super) fn written<T: std::fmt::Display + std::fmt::Debug + 'static>(
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<String> {
    strategy.prop_map(|value| value.to_string()).boxed()
}

pub(super) fn text() -> BoxedStrategy<String> {
    let piece = prop_oneof![
        any::<char>().prop_map(String::from),
        prop::sample::select(vec![
            "\"", "\\", "\n", "\r", "\t", "\u{8}", "\u{c}", "\u{1}", "\u{1f}", "\u{7f}", "\u{2028}", "é",
            "😀", ",", "{", "}", "(", ")", " ", "NULL", "abcdefgh", "\\u0041", "'", "/", "",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().replace('\0', "0")).boxed()
}

/// The number of months, days and years that a calendar of all types can hold; `BC` where the year says so.
pub(super) fn date(years: std::ops::Range<i32>) -> BoxedStrategy<String> {
    let era = |year: i32| if year > 0 { (year, "") } else { (1 - year, " BC") };
    (prop_oneof![1900..2100_i32, years], 1..=12_u8, 1..=28_u8)
        .prop_map(move |(year, month, day)| {
            let (year, era) = era(year);
            format!("{year:04}-{month:02}-{day:02}{era}")
        })
        .boxed()
}

pub(super) fn time() -> BoxedStrategy<String> {
    let fraction =
        prop_oneof![Just(String::new()), (0..1_000_000_u32).prop_map(|micros| format!(".{micros:06}"))];
    (0..24_u8, 0..60_u8, 0..60_u8, fraction)
        .prop_map(|(hour, minute, second, fraction)| format!("{hour:02}:{minute:02}:{second:02}{fraction}"))
        .boxed()
}

pub(super) fn timestamp() -> BoxedStrategy<String> {
    (date(-4000..290_000), time())
        .prop_map(|(date, time)| match date.strip_suffix(" BC") {
            Some(date) => format!("{date} {time} BC"),
            None => format!("{date} {time}"),
        })
        .boxed()
}

/// JSON documents with white space, line breaks among it, wherever there may be some.
pub(super) fn json() -> BoxedStrategy<String> {
    let space = || prop::sample::select(vec!["", " ", "\n", "\r\n", "\t", " \n "]);
    let string = || text().prop_map(|text| serde_json::to_string(&text).unwrap());
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "0",
            "-0",
            "1.0",
            "1e3",
            "-12.50",
            "123456789012345678901234567890"
        ])
        .prop_map(str::to_owned),
        string(),
    ];
    leaf.prop_recursive(4, 16, 4, move |inner| {
        let list = (prop::collection::vec(inner.clone(), 0..4), space()).prop_map(|(items, space)| {
            format!("[{space}{}{space}]", items.join(&format!("{space},{space}")))
        });
        let entry =
            (string(), space(), inner).prop_map(|(key, space, value)| format!("{key}{space}:{space}{value}"));
        let object = (prop::collection::vec(entry, 0..4), space())
            .prop_map(|(entries, space)| format!("{{{space}{}{space}}}", entries.join(&format!("{space},"))));
        prop_oneof![list, object]
    })
    .boxed()
}

pub(super) fn ordered<T: Ord + Clone + std::fmt::Display + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = (String, String)> + 'static {
    (value.clone(), value).prop_map(|(a, b)| {
        if a <= b { (a.to_string(), b.to_string()) } else { (b.to_string(), a.to_string()) }
    })
}

pub(super) fn point() -> BoxedStrategy<String> {
    (-1000..1000_i32, any::<f32>().prop_filter("finite", |y| y.is_finite()))
        .prop_map(|(x, y)| format!("({x},{y})"))
        .boxed()
}

pub(super) fn points(count: std::ops::Range<usize>) -> BoxedStrategy<String> {
    prop::collection::vec(point(), count).prop_map(|points| points.join(",")).boxed()
}

pub(super) fn hex(bytes: std::ops::Range<usize>) -> BoxedStrategy<String> {
    let digits = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    prop::collection::vec(any::<u8>(), bytes).prop_map(digits).boxed()
}
