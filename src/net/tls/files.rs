//! Certificates and keys, from files of PEM.
//!
//! Guarantees: an error names the option and the file; what is read of a key is wiped; the environment is not asked where the system's
//! certificates are. Leaves to others: whether a key fits its certificate (rustls), and when to read again (connector).

use std::fs;
use std::os::unix::fs::MetadataExt;

use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::der::SecretDocument;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::config::{TlsSettings, TlsVerify};
use crate::error::{Error, Result, Status, system_text};

/// Where systems keep the certificates that they trust.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
    "/etc/pki/tls/cert.pem",
];

/// Which file it is, and of which state: a file that was written anew or replaced has another stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    file: String,
    seen: Option<(u64, u64, i64, i64, u64)>,
}

/// The stamps of all files that the settings mean.
pub(super) fn stamps(settings: &TlsSettings) -> Vec<Stamp> {
    let ca = match own_ca(settings) {
        _ if settings.verify == TlsVerify::None => None,
        Some(file) => Some(file),
        None => system_ca(),
    };
    let files = [ca, settings.cert.as_deref(), settings.key.as_deref()];
    let stamp = |file: &str| {
        let seen = fs::metadata(file).ok();
        let seen = seen.map(|seen| (seen.dev(), seen.ino(), seen.mtime(), seen.mtime_nsec(), seen.len()));
        Stamp { file: file.to_owned(), seen }
    };
    files.into_iter().flatten().map(stamp).collect()
}

/// The CA file that is set; `None`: the system's.
fn own_ca(settings: &TlsSettings) -> Option<&str> {
    settings.ca.as_deref().filter(|file| *file != "system")
}

/// The first of the usual files that is there.
fn system_ca() -> Option<&'static str> {
    SYSTEM.iter().find(|file| fs::metadata(file).is_ok()).copied()
}

/// The certificates that are trusted.
pub(super) fn roots(settings: &TlsSettings) -> Result<RootCertStore> {
    let option = format!("\"{}.ca\"", settings.prefix);
    let file = match own_ca(settings) {
        Some(file) => file,
        None => system_ca().ok_or_else(|| {
            let places = SYSTEM.join(", ");
            bad(
                &option,
                format_args!("the system has no certificates in any of {places}: set it to the file of your CA"),
            )
        })?,
    };
    let found = certificates(&option, file)?;
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found);
    // A system's file may hold some that are no use; one's own file is meant whole.
    if added == 0 || (ignored > 0 && own_ca(settings).is_some()) {
        return Err(bad(&option, format_args!("{file} holds {ignored} certificates that cannot be read as X.509")));
    }
    Ok(roots)
}

/// The client's certificate with those between it and its CA, and its key.
pub(super) fn pair(settings: &TlsSettings) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else { return Ok(None) };
    let chain = certificates(&format!("\"{}.cert\"", settings.prefix), cert)?;
    Ok(Some((chain, self::key(settings, key)?)))
}

/// The client's own certificate, in DER.
pub fn client_certificate(settings: &TlsSettings) -> Result<Option<Vec<u8>>> {
    let Some(file) = &settings.cert else { return Ok(None) };
    let chain = certificates(&format!("\"{}.cert\"", settings.prefix), file)?;
    Ok(chain.first().map(|certificate| certificate.to_vec()))
}

fn certificates(option: &str, file: &str) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(option, file)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(bad(option, format_args!("{file} holds no certificate (PEM)"))),
        Ok(found) => Ok(found),
        Err(error) => Err(bad(option, format_args!("{file} is no PEM: {error}"))),
    }
}

fn key(settings: &TlsSettings, file: &str) -> Result<PrivateKeyDer<'static>> {
    let option = format!("\"{}.key\"", settings.prefix);
    let text = read(&option, file)?;
    if let Some(encrypted) = section(&text, "ENCRYPTED PRIVATE KEY") {
        return decrypted(settings, &option, file, encrypted);
    }
    if memchr::memmem::find(&text, b"Proc-Type: 4,ENCRYPTED").is_some() {
        let advice = "openssl pkcs8 -topk8 -in old.key -out new.key";
        return Err(bad(&option, format_args!("{file} is encrypted in an old way: convert it ({advice})")));
    }
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| bad(&option, format_args!("{file} holds no private key (PEM): {error}")))
}

/// The section with this label, its first and last line included.
fn section<'a>(text: &'a [u8], label: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(text).ok()?;
    let end = format!("-----END {label}-----");
    let from = text.find(&format!("-----BEGIN {label}-----"))?;
    let to = from + text[from..].find(&end)? + end.len();
    Some(&text[from..to])
}

fn decrypted(settings: &TlsSettings, option: &str, file: &str, pem: &str) -> Result<PrivateKeyDer<'static>> {
    let password_option = format!("\"{}.key_password\"", settings.prefix);
    let Some(password) = &settings.key_password else {
        return Err(bad(option, format_args!("{file} is encrypted: set {password_option}")));
    };
    let broken =
        |error: &dyn std::fmt::Display| bad(option, format_args!("{file} is no encrypted PKCS#8 key: {error}"));
    let (_, document) = SecretDocument::from_pem(pem).map_err(|error| broken(&error))?;
    let info = EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|error| broken(&error))?;
    let key = info.decrypt(password.expose()).map_err(|error| match error {
        pkcs8::Error::ParametersMalformed => {
            bad(option, format_args!("{file} is encrypted in a way that is not known here: {error}"))
        }
        _ => bad(&password_option, format_args!("it does not open {file} ({error})")),
    })?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_bytes().to_vec())))
}

fn read(option: &str, file: &str) -> Result<Zeroizing<Vec<u8>>> {
    // A pipe would keep the call that opens a connection waiting for somebody who writes into it.
    if fs::metadata(file).is_ok_and(|seen| !seen.is_file()) {
        return Err(bad(option, format_args!("{file} is no regular file")));
    }
    match fs::read(file) {
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(error) => Err(bad(option, format_args!("cannot read {file}: {}", system_text(&error)))),
    }
}

/// The error for a file that is no use.
pub(super) fn bad(option: &str, what: impl std::fmt::Display) -> Error {
    Error::new(Status::Config, format!("option {option}: {what}"))
}
