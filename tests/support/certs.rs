//! Certificates for tests, made by the openssl command: a CA, and what it signs.
//!
//! Good and bad ones: expired, for another name, without names, of version 1. Each is a pair of files of PEM in the CA's directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The names of a certificate for every server of a test.
pub const LOCAL: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1";

/// A CA with a directory of its own, which goes with it.
pub struct Ca {
    dir: PathBuf,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Ca {
    pub fn new() -> Ca {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("vigie-ca-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let ca = Ca { dir };
        let subject = format!("/CN=CA {number} of {}", std::process::id());
        ca.openssl(&[
            &["req", "-x509", "-days", "30", "-subj", &subject][..],
            NEW_KEY,
            &["-keyout", "ca.key", "-out", "ca.crt"],
        ]);
        ca
    }

    /// The file with its own certificate.
    pub fn file(&self) -> String {
        self.path("ca.crt")
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A certificate for localhost and its addresses, for servers and clients.
    pub fn local(&self, name: &str) -> Pair {
        self.sign(name, 30, Some(LOCAL))
    }
    /// As `local`, but its last day was yesterday.
    pub fn expired(&self, name: &str) -> Pair {
        self.sign(name, -1, Some(LOCAL))
    }
    /// With this line of extensions; `None`: of version 1, which has none.
    pub fn sign(&self, name: &str, days: i32, extension: Option<&str>) -> Pair {
        let file = |end: &str| format!("{name}.{end}");
        let (csr, key, crt, ext) = (file("csr"), file("key"), file("crt"), file("ext"));
        self.openssl(&[&["req", "-new", "-subj", &format!("/CN={name}")], NEW_KEY, &["-keyout", &key, "-out", &csr]]);
        let days = days.to_string();
        let sign = [
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            &days,
            "-out",
            &crt,
        ];
        match extension {
            Some(line) => {
                std::fs::write(self.dir.join(&ext), format!("{line}\nbasicConstraints=CA:FALSE\n")).expect("a file");
                self.openssl(&[&sign, &["-extfile", &ext]]);
            }
            None => self.openssl(&[&sign]),
        }
        Pair { cert: self.path(&crt), key: self.path(&key) }
    }
    /// The same key, encrypted as PKCS#8.
    pub fn encrypt(&self, pair: &Pair, password: &str) -> Pair {
        let key = format!("{}.enc", pair.key);
        let pass = format!("pass:{password}");
        self.openssl(&[&["pkcs8", "-topk8", "-in", &pair.key, "-passout", &pass, "-out", &key]]);
        Pair { cert: pair.cert.clone(), key }
    }

    fn openssl(&self, words: &[&[&str]]) {
        let mut command = Command::new("openssl");
        command.args(words.concat()).current_dir(&self.dir).stdin(Stdio::null());
        let output = command.output().expect("the openssl command is installed (scripts/setup test)");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

const NEW_KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
