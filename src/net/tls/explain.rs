//! What an error of TLS means, as a sentence that says what to change.
//!
//! Guarantees: each sentence names the options by the names that the user has set. Leaves to others: where it happened and after how
//! long.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::config::{TlsSettings, TlsVersion};

/// What a connection was to be, for its messages.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// What the names of the options begin with.
    pub(super) prefix: &'static str,
    /// The name that the certificate has to be for.
    pub(super) name: String,
    /// Whether a client certificate is shown on request.
    pub(super) has_cert: bool,
    pub(super) min_version: TlsVersion,
    /// Whose certificates are trusted.
    trusted: String,
}

impl Facts {
    pub(super) fn new(settings: &TlsSettings, name: String) -> Self {
        let trusted = match settings.ca.as_deref() {
            None | Some("system") => "the system trusts".to_owned(),
            Some(file) => format!("{file} names"),
        };
        let (prefix, min_version) = (settings.prefix, settings.min_version);
        Self { prefix, name, has_cert: settings.cert.is_some(), min_version, trusted }
    }

    /// The sentence for an error of a session.
    pub(super) fn explain(&self, error: &Error) -> String {
        let prefix = self.prefix;
        match error {
            Error::InvalidCertificate(cause) => self.certificate(cause),
            Error::AlertReceived(alert) => self.alert(*alert),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                format!(
                    "the server does not speak TLS on this port: connect to its TLS port, or set \"{prefix}\" to off"
                )
            }
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => self.version(),
            other => format!("TLS failed: {other}"),
        }
    }

    /// What sets an option for the data nodes as well.
    fn of_both(&self, option: &str) -> String {
        match self.prefix != "tls" {
            true => format!(" (\"tls.{option}\" is for the Sentinels and the data nodes)"),
            false => String::new(),
        }
    }

    fn version(&self) -> String {
        match self.min_version {
            TlsVersion::Tls12 => {
                "the server speaks neither TLS 1.2 nor 1.3: update it, or correct its tls-protocols".to_owned()
            }
            TlsVersion::Tls13 => format!(
                "the server does not speak TLS 1.3: set \"{0}.min_version\" to 1.2, or let the server's tls-protocols allow 1.3",
                self.prefix
            ),
        }
    }

    fn certificate(&self, cause: &CertificateError) -> String {
        let (prefix, name) = (self.prefix, &self.name);
        match cause {
            CertificateError::UnknownIssuer => format!(
                "the server's certificate is signed by none that {}: set \"{prefix}.ca\" to the file with the certificate of its CA{}",
                self.trusted,
                self.of_both("ca")
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired: renew it (and check the clock of this machine)".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: check the clocks of this machine and of the one that made it".to_owned()
            }
            CertificateError::NotValidForName => self.other_name(&[]),
            CertificateError::NotValidForNameContext { presented, .. } => self.other_name(presented),
            CertificateError::BadSignature => format!(
                "the signature of the server's certificate is wrong: \"{prefix}.ca\" has another key under the same name"
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the server's certificate is not for servers: make one whose extendedKeyUsage has serverAuth".to_owned()
            }
            other => {
                // webpki has more causes than rustls gives names to.
                let text = format!("{other:?}");
                if text.contains("UnsupportedCertVersion") {
                    return "the server's certificate is of version 1: make one of version 3, with subjectAltName (redis-cli accepts \
                            both)"
                        .to_owned();
                }
                if text.contains("CaUsedAsEndEntity") {
                    return format!(
                        "the server shows the certificate of a CA as its own: give it one of its own (basicConstraints CA:FALSE) for {name}"
                    );
                }
                format!("the server's certificate is refused: {text}")
            }
        }
    }

    fn other_name(&self, presented: &[String]) -> String {
        let (prefix, name) = (self.prefix, &self.name);
        if presented.is_empty() {
            return format!(
                "the server's certificate has no subjectAltName, and its common name does not count: make one with {name} in its \
                 subjectAltName (redis-cli accepts both), or set \"{prefix}.verify\" to ca"
            );
        }
        format!(
            "the server's certificate is not for {name} but for {}: set \"{prefix}.server_name\" to one of these, or \"{prefix}.verify\" \
             to ca, or make one with {name} in its subjectAltName",
            presented.join(", ")
        )
    }

    fn alert(&self, alert: AlertDescription) -> String {
        let prefix = self.prefix;
        let shown = format!("\"{prefix}.cert\" and \"{prefix}.key\"");
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate if !self.has_cert => {
                format!("the server wants a client certificate: set {shown}{}", self.of_both("cert"))
            }
            // Servers of TLS 1.2 have no word of its own for that.
            AlertDescription::HandshakeFailure if !self.has_cert => format!(
                "the server ended the handshake (handshake_failure): if it wants a client certificate (tls-auth-clients), set {shown}; \
                 otherwise it has no cipher or version in common with this library"
            ),
            AlertDescription::UnknownCA => {
                format!(
                    "the server does not know the CA of the client certificate: check {shown}, or the server's tls-ca-cert-file"
                )
            }
            AlertDescription::CertificateExpired => {
                format!("the server says that the client certificate has expired: renew {shown}")
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired => {
                let word = name_of(alert);
                format!("the server refused the client certificate ({word}): check {shown}")
            }
            AlertDescription::ProtocolVersion => self.version(),
            AlertDescription::UnrecognisedName => {
                format!(
                    "the server does not know the name {}: set \"{prefix}.server_name\" to one that it does",
                    self.name
                )
            }
            other => format!("the server ended TLS with an alert ({})", name_of(other)),
        }
    }

    /// The connection ended during the handshake, without an alert.
    pub(super) fn ended(&self) -> String {
        format!(
            "it ended the connection during the TLS handshake: a port without TLS does that (then set \"{0}\" to off or take the TLS \
             port), and a server that misses a client certificate (\"{0}.cert\")",
            self.prefix
        )
    }

    /// No answer came to the handshake.
    pub(super) fn unfinished(&self) -> String {
        format!(
            "the TLS handshake was not answered: a port without TLS is silent, too (then set \"{0}\" to off, or take the TLS port)",
            self.prefix
        )
    }
}

/// The alert's name as the standard spells it.
fn name_of(alert: AlertDescription) -> String {
    let text = format!("{alert:?}");
    let mut name = String::new();
    for (at, letter) in text.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 && !name.ends_with('c') {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_have_the_names_of_the_standard() {
        for (alert, name) in [
            (AlertDescription::BadCertificate, "bad_certificate"),
            (AlertDescription::CertificateUnknown, "certificate_unknown"),
            (AlertDescription::HandshakeFailure, "handshake_failure"),
            (AlertDescription::InternalError, "internal_error"),
        ] {
            assert_eq!(name_of(alert), name);
        }
    }
}
