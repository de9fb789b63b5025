//! As much of Grafana's dashboards and Prometheus' query language as it takes to know what is
//! asked for.

use std::collections::BTreeSet;

use serde_json::Value;

/// Every `expr` of a dashboard.
pub(crate) fn expressions(dashboard: &str) -> Vec<String> {
    let mut found = Vec::new();
    gather("expr", &parse(dashboard), &mut found);
    found
}

/// The patterns of names that a dashboard's variables take their values from: `metrics(pattern)`.
pub(crate) fn patterns(dashboard: &str) -> Vec<String> {
    let mut found = Vec::new();
    gather("definition", &parse(dashboard), &mut found);
    let pattern = |query: &String| {
        let pattern = query.strip_prefix("metrics(").and_then(|query| query.strip_suffix(')'));
        pattern.unwrap_or_else(|| panic!("{query} asks for something else")).to_owned()
    };
    found.iter().map(pattern).collect()
}

fn parse(dashboard: &str) -> Value {
    serde_json::from_str(dashboard).expect("a dashboard is JSON")
}

/// The texts of all fields of this name, however deep.
fn gather(wanted: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == wanted => found.push(text.clone()),
                    other => gather(wanted, other, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| gather(wanted, value, found)),
        _ => {}
    }
}

/// Words that take a list of labels in parentheses.
const LABELLED: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];

/// The metrics that an expression without variables selects.
pub(crate) fn metric_names(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '{' => past(rest, '}'),
            '[' => past(rest, ']'),
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                let (word, after) = (&rest[..length], rest[length..].trim_start());
                if LABELLED.contains(&word) && after.starts_with('(') {
                    rest.len() - after.len() + past(after, ')')
                } else {
                    let is_word = LABELLED.contains(&word) || OPERATORS.contains(&word);
                    // `sum(…)`, or `sum by (…) (…)`.
                    let is_function = after.starts_with('(')
                        || after.starts_with("by ")
                        || after.starts_with("without ");
                    if !is_word && !is_function {
                        names.insert(word.to_owned());
                    }
                    length
                }
            }
            '0'..='9' => {
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len())
            }
            other => other.len_utf8(),
        };
        rest = &rest[length..];
    }
    names
}

fn past(text: &str, end: char) -> usize {
    text.find(end).map_or(text.len(), |at| at + end.len_utf8())
}

#[test]
fn names_are_told_from_functions_labels_and_words() {
    for (expression, names) in [
        ("goal_tps", &["goal_tps"] as &[_]),
        ("sum by (class) (rate(failures[5m])) > 0", &["failures"]),
        ("latency{quantile=~\"0.5|0.9\", job=\"balter\"}", &["latency"]),
        ("rate(sum_1[1s]) / on (core) group_left rate(count[4s] offset 5m)", &["count", "sum_1"]),
        ("a and b unless 1e3 * c", &["a", "b", "c"]),
    ] {
        let found: Vec<_> = metric_names(expression).into_iter().collect();
        assert_eq!(found, names, "{expression}");
    }
}
