//! Takes the files of Swagger UI out of the archive in the crate `utoipa-swagger-ui-vendored`.
//!
//! The members of a zip archive are compressed with DEFLATE, as the content of a gzip file is, so only the header and the
//! trailer around them change. Nothing is compressed or decompressed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

/// The ends of the members' names, and the names of the files in `OUT_DIR`.
const FILES: [(&str, &str); 3] = [
    ("/dist/swagger-ui-bundle.js", "swagger-ui.js.gz"),
    ("/dist/swagger-ui.css", "swagger-ui.css.gz"),
    ("/LICENSE", "swagger-ui.license.gz"),
];
/// The signature of the record at the end of an archive, and that of a member in its directory (APPNOTE.TXT §4.3).
const END: &[u8] = b"PK\x05\x06";
const MEMBER: &[u8] = b"PK\x01\x02";
/// The compression method DEFLATE.
const DEFLATE: usize = 8;
/// The length of a member's local header without its name and extra field.
const LOCAL_HEADER_BYTES: usize = 30;
/// The header of a gzip file (RFC 1952 §2.3): DEFLATE, no name, no time, unknown file system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for (end, name) in FILES {
        fs::write(out.join(name), gzip(SWAGGER_UI_VENDORED, end)?)?;
    }
    Ok(())
}

/// Returns the first member of an archive whose name ends with `end`, as a gzip file.
fn gzip(archive: &[u8], end: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let directory = archive.windows(END.len()).rposition(|bytes| bytes == END);
    let directory = directory.ok_or("the archive has no directory")?;
    let mut at = number(archive, directory + 16, 4)?;
    while archive.get(at..at + MEMBER.len()) == Some(MEMBER) {
        let field = |offset, bytes| number(archive, at + offset, bytes);
        let (name_bytes, extra, comment) = (field(28, 2)?, field(30, 2)?, field(32, 2)?);
        let name = archive.get(at + 46..at + 46 + name_bytes).ok_or("the directory is cut off")?;
        if name.ends_with(end.as_bytes()) {
            if field(10, 2)? != DEFLATE {
                return Err(format!("{end} is not compressed with DEFLATE").into());
            }
            let local = field(42, 4)?;
            let begin = local
                + LOCAL_HEADER_BYTES
                + number(archive, local + 26, 2)?
                + number(archive, local + 28, 2)?;
            let data = archive.get(begin..begin + field(20, 4)?).ok_or("a member is cut off")?;
            let crc = archive.get(at + 16..at + 20).ok_or("the directory is cut off")?;
            let length = archive.get(at + 24..at + 28).ok_or("the directory is cut off")?;
            return Ok([GZIP_HEADER.as_slice(), data, crc, length].concat());
        }
        at += 46 + name_bytes + extra + comment;
    }
    Err(format!("the archive has no {end}").into())
}

/// Reads a number in little-endian order.
fn number(archive: &[u8], at: usize, bytes: usize) -> Result<usize, Box<dyn Error>> {
    let bytes = archive.get(at..at + bytes).ok_or("the archive is cut off")?;
    Ok(bytes.iter().rev().fold(0, |number, byte| (number << 8) | usize::from(*byte)))
}
