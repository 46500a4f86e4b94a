//! The Prometheus text format, read strictly: what a scraper would stumble over is an error here.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by `name{labels}` as written, after a look at everything.
pub struct Page {
    pub samples: BTreeMap<String, f64>,
    pub kinds: BTreeMap<String, String>,
}

impl Page {
    /// # Panics
    /// When the text is not as the format says.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line does not end");
        let mut page = Self { samples: BTreeMap::new(), kinds: BTreeMap::new() };
        let (mut helped, mut current) = (BTreeSet::new(), String::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect(line);
                assert!(helped.insert(name.to_owned()) && !text.is_empty(), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(page.kinds.insert(name.into(), kind.into()).is_none(), "twice: {line}");
                current = name.into();
            } else {
                page.sample(line, &current);
            }
        }
        assert_eq!(page.kinds.keys().cloned().collect::<BTreeSet<_>>(), helped, "each has HELP and TYPE");
        page.check_histograms();
        page
    }

    fn sample(&mut self, line: &str, current: &str) {
        let (id, value) = line.rsplit_once(' ').expect(line);
        let name = id.split('{').next().expect(line);
        let legal = |text: &str| {
            !text.is_empty()
                && !text.starts_with(|c: char| c.is_ascii_digit())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        assert!(legal(name), "{line}");
        let stem = match self.kinds.get(current).map(String::as_str) {
            Some("histogram") => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)),
            _ => Some(name),
        };
        assert_eq!(stem, Some(current), "a sample stands under its own TYPE: {line}");
        if self.kinds[current] == "counter" {
            assert!(name.ends_with("_total"), "{line}");
        }
        if let Some(labels) = id.strip_prefix(name).and_then(|l| l.strip_prefix('{')) {
            let labels = labels.strip_suffix('}').expect(line);
            for label in labels.split("\",") {
                let (key, value) = label.split_once("=\"").expect(line);
                assert!(legal(key), "{line}");
                assert!(!value.trim_end_matches('"').contains(['"', '\n']), "{line}");
            }
        }
        let value: f64 = value.parse().expect(line);
        assert!(value >= 0.0, "{line}");
        assert!(self.samples.insert(id.into(), value).is_none(), "twice: {line}");
    }

    /// Buckets rise, the last one is +Inf and as large as the count.
    fn check_histograms(&self) {
        let mut last: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (id, value) in &self.samples {
            let bucket = id.contains("_bucket{").then(|| id.rsplit_once("le=\""));
            let Some((before, le)) = bucket.flatten() else { continue };
            let le = le.trim_end_matches("\"}").replace("+Inf", "inf").parse().expect(id);
            last.entry(before.trim_end_matches(',').into()).or_default().push((le, *value));
        }
        for (series, mut buckets) in last {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.windows(2).all(|w| w[0].1 <= w[1].1), "{series}: {buckets:?}");
            let (name, labels) = series.split_once("_bucket{").expect("a bucket");
            let count = if labels.is_empty() { format!("{name}_count") } else { format!("{name}_count{{{labels}}}") };
            let whole = buckets.last().copied();
            assert_eq!(whole, Some((f64::INFINITY, self.samples[&count])), "{series}");
        }
    }

    /// The sum of all samples of a name that have these parts in their labels.
    pub fn sum(&self, name: &str, parts: &[&str]) -> f64 {
        let fits = |id: &str| id.split('{').next() == Some(name) && parts.iter().all(|p| id.contains(p));
        self.samples.iter().filter(|(id, _)| fits(id)).map(|(_, n)| n).sum()
    }
}
