//! Tests procedure files that are replaced while the backend is running.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[tokio::test]
async fn a_file_of_the_same_age_replaces_a_procedure() {
    let database = TestDatabase::new(&[("v1", "SELECT 1 AS v"), ("v2", "SELECT 2 AS v")]);
    let path = |name: &str| database.directory.path().join(format!("t.{name}.sql"));
    for name in ["v1", "v2"] {
        let file = fs::File::options().write(true).open(path(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    }
    for (target, expected) in [("v1", 1), ("v2", 2)] {
        let link = path("new");
        symlink(path(target), &link).unwrap();
        fs::rename(&link, path("current")).unwrap();
        tokio::time::sleep(FILE_TRUSTED).await;
        assert_eq!(database.rows("current", &[]).await, [[OwnedCell::Int(expected)]]);
    }
}
