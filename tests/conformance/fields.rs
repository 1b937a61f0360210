//! An answer as a list of named values, which is how two answers are compared and how a difference
//! is told.
//!
//! Generated messages name all their fields in their `Debug` form, those of later versions too, so
//! that form is what is taken apart here: no field can be forgotten in a comparison.

use std::fmt::Debug;

use tonic::Status;

/// Where a value is in an answer, and the value: `RangeResponse.kvs[2].version`, `3`.
pub(crate) type Fields = Vec<(String, String)>;

/// All values of a message, in order.
pub(crate) fn of(message: &impl Debug) -> Fields {
    let text = format!("{message:#?}");
    let mut fields = Fields::new();
    // One step of the path for each open brace; lists count what has been in them.
    let mut path: Vec<(String, Option<usize>)> = Vec::new();
    for line in text.lines() {
        let line = line.trim().trim_end_matches(',');
        if matches!(line, "}" | ")" | "]") {
            path.pop();
            continue;
        }
        let (name, rest) = split(line);
        let mut step = name.unwrap_or_default().to_owned();
        if name.is_none()
            && let Some((_, Some(index))) = path.last_mut()
        {
            step = format!("[{index}]");
            *index += 1;
        }
        match rest.chars().last() {
            Some('{' | '(') if !rest.ends_with('"') => {
                let of_type = rest.trim_end_matches(['{', '(']).trim();
                // The outermost name and those of a union's members say something; the name of
                // a field's type would only repeat the field's.
                if step.is_empty() && of_type != "Some" && (path.is_empty() || rest.ends_with('(')) {
                    step = of_type.to_owned();
                }
                path.push((step, None));
            }
            Some('[') => path.push((step, Some(0))),
            _ => fields.push((join(&path, &step), rest.to_owned())),
        }
    }
    fields
}

/// The values of a refusal.
pub(crate) fn of_error(status: &Status) -> Fields {
    vec![
        ("error.code".to_owned(), format!("{:?}", status.code())),
        ("error.message".to_owned(), status.message().to_owned()),
    ]
}

/// The value at a path.
pub(crate) fn value<'a>(fields: &'a Fields, path: &str) -> Option<&'a str> {
    fields.iter().find(|(at, _)| at == path).map(|(_, value)| value.as_str())
}

fn split(line: &str) -> (Option<&str>, &str) {
    match line.split_once(": ") {
        Some((name, rest)) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            (Some(name), rest)
        }
        _ => (None, line),
    }
}

fn join(path: &[(String, Option<usize>)], last: &str) -> String {
    let mut joined = String::new();
    for step in path.iter().map(|(step, _)| step.as_str()).chain([last]) {
        if !joined.is_empty() && !step.is_empty() && !step.starts_with('[') {
            joined.push('.');
        }
        joined.push_str(step);
    }
    joined
}

/// Checks itself on an answer with everything in it: called before each run, since this target has
/// a main function of its own in place of a test harness.
pub(crate) fn check() {
    use api::etcdserverpb::response_op::Response;
    use api::etcdserverpb::{PutResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse};
    use api::mvccpb::KeyValue;
    let pair = KeyValue { key: "{".into(), value: "k: 1,\n(".into(), lease: 7, ..Default::default() };
    let range = RangeResponse { kvs: vec![KeyValue::default(), pair], ..Default::default() };
    let answer = TxnResponse {
        header: Some(ResponseHeader { revision: 5, ..Default::default() }),
        succeeded: true,
        responses: vec![
            ResponseOp { response: Some(Response::ResponsePut(PutResponse::default())) },
            ResponseOp { response: Some(Response::ResponseRange(range)) },
        ],
    };
    let fields = of(&answer);
    let at = |path: &str| value(&fields, path);
    assert_eq!(at("TxnResponse.header.revision"), Some("5"), "{fields:#?}");
    assert_eq!(at("TxnResponse.responses[0].response.ResponsePut.prev_kv"), Some("None"), "{fields:#?}");
    let kv = "TxnResponse.responses[1].response.ResponseRange.kvs[1]";
    assert_eq!(at(&format!("{kv}.lease")), Some("7"), "{fields:#?}");
    assert_eq!(at(&format!("{kv}.key")), Some("b\"{\""), "{fields:#?}");
    assert_eq!(at(&format!("{kv}.value")), Some("b\"k: 1,\\n(\""), "{fields:#?}");
}
