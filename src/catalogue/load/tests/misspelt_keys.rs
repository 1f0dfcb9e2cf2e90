//! Tests the errors for misspelt keys.

use super::{errors, with};

#[test]
fn the_error_for_a_misspelt_key_names_only_the_similar_key() {
    for (key, similar) in [("timout", "timeout"), ("paramters", "parameters"), ("Route", "route")] {
        let found = errors(&format!(r#"{{"e": {}}}"#, with(&format!(r#""{key}": {{}}"#))));
        let expected = format!("endpoint \"e\": {key}: is not a key: did you mean {similar}?");
        assert!(found.iter().any(|line| line.ends_with(&expected)), "{found:#?}");
    }
}

/// The errors of a misspelt key do not include what is missing because of it.
#[test]
fn a_misspelt_key_is_one_error() {
    for (members, expected) in [
        (
            r#""rout":"GET /e","procedure":"a.b","auth":"public""#,
            "rout: is not a key: did you mean route?",
        ),
        (
            r#""route":"GET /e","procedur":"a.b","auth":"public""#,
            "procedur: is not a key: did you mean procedure?",
        ),
        (
            r#""route":"GET /e","handlr":"echo","auth":"public""#,
            "handlr: is not a key: did you mean handler?",
        ),
        (
            r#""route":"GET /e","queus":{"a":{"weight":1,"procedure":"a.b"}},"auth":"public""#,
            "queus: is not a key: did you mean queues?",
        ),
        (
            r#""route":"GET /e","procedure":"a.b","auht":"public""#,
            "auht: is not a key: did you mean auth?",
        ),
        (
            r#""route":"GET /e/{id}","procedure":"a.b","auth":"public","paramters":{"id":{"in":"path","type":"int32"}}"#,
            "paramters: is not a key: did you mean parameters?",
        ),
        (
            r#""route":"GET /e/{id}","procedure":"a.b","auth":"public","parameters":{"id":{"inn":"path","type":"int32"}}"#,
            "parameters.id.inn: is not a key: did you mean in?",
        ),
        (
            r#""route":"GET /e/{id}","procedure":"a.b","auth":"public","parameters":{"id":{"in":"path","tpye":"int32"}}"#,
            "parameters.id.tpye: is not a key: did you mean type?",
        ),
        (
            r#""route":"GET /e","procedure":"a.b","auth":"public","queues":{"a":{"wieght":1}}"#,
            "queues.a.wieght: is not a key: did you mean weight?",
        ),
        (
            r#""route":"GET /e","procedure":"a.b","auth":"public","returns":{"a":{"tpye":"int32"}}"#,
            "returns.a.tpye: is not a key: did you mean type?",
        ),
    ] {
        let found = errors(&format!(r#"{{"e":{{{members}}}}}"#));
        assert_eq!(found, [format!("a.json: endpoint \"e\": {expected}")], "{members}");
    }
}

/// A missing key is reported if the suggestion is another key, or was made for another endpoint.
#[test]
fn a_missing_key_is_an_error_beside_other_misspelt_keys() {
    let found = errors(
        r#"{"e":{"route":"GET /e","procedure":"a.b","sumary":"x"},"f":{"procedure":"a.b","auth":"public"},
            "g":{"rout":"GET /g","procedure":"a.b","auth":"public"},"h":{"procedure":"a.b","auth":"public"}}"#,
    );
    for expected in [
        "\"e\": sumary: is not",
        "\"e\": auth: missing",
        "\"f\": route: missing",
        "\"h\": route: missing",
    ] {
        assert!(found.iter().any(|line| line.contains(expected)), "{expected}\n{found:#?}");
    }
}

/// What is missing in the value of a key that is present is not missing because of the misspelt key.
#[test]
fn a_missing_key_is_an_error_if_the_suggested_key_is_present() {
    for (members, expected) in [
        (
            r#""route":"GET /e/{id}","parameters":{},"paramters":{"id":{"in":"path","type":"int32"}}"#,
            "route: {id} is not among the parameters",
        ),
        (
            r#""route":"GET /e/{id}","parameters":{"id":{"in":"query","inn":"path","type":"int32"}}"#,
            "route: {id} is not among the parameters",
        ),
    ] {
        let members = format!(r#""procedure":"a.b","auth":"public",{members}"#);
        let found = errors(&format!(r#"{{"e":{{{members}}}}}"#));
        assert!(found.iter().any(|line| line.contains("is not a key: did you mean")), "{found:#?}");
        assert!(found.iter().any(|line| line.contains(expected)), "{members}: {found:#?}");
    }
}
