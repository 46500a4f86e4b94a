//! Randomness from the operating system, and files that hold secrets.

use crate::{Settings, StartError};
use ims_core::{Rng, Secret};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Random bytes. Without a source of entropy nothing in this process may go on: an IMS core with guessable tokens is worse
/// than none.
pub fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|e| StartError::System(io::Error::other(e.to_string())))?;
    Ok(out)
}

/// A generator for one node.
pub fn rng() -> Result<Rng, StartError> {
    Ok(Rng::from_seed(random()?))
}

/// The HSS master key: 64 hexadecimal digits from the environment variable `IMSBOX_MASTER_KEY`, from the file that the
/// settings name, or from `hss.key` in the data folder, which is made at first start.
pub fn master_key(settings: &Settings) -> Result<Secret<32>, StartError> {
    match std::env::var("IMSBOX_MASTER_KEY") {
        Ok(text) => Secret::from_hex(text.trim()).ok_or(StartError::Key {
            path: "IMSBOX_MASTER_KEY".into(),
            reason: "the master key is 64 hexadecimal digits (32 bytes): correct the variable, or unset it to use hss.key",
        }),
        Err(_) => secret(settings.master_key_file.as_deref(), &settings.data_dir.join("hss.key")),
    }
}

/// The token of the REST API: from the file that the settings name, or from `admin.token` in the data folder, which is made
/// at first start.
pub(crate) fn admin_token(settings: &Settings) -> Result<Secret<32>, StartError> {
    secret(settings.admin_token_file.as_deref(), &settings.token_file())
}

/// `given` is a file that somebody mounted here (`/run/secrets/...`): it is only read, and its permissions are not ours to
/// judge, for Docker and Kubernetes mount secrets that everybody in the container can read.
fn secret(given: Option<&Path>, own: &Path) -> Result<Secret<32>, StartError> {
    let Some(path) = given else { return secret_file(own) };
    match fs::read_to_string(path).map(zeroize::Zeroizing::new) {
        Ok(text) => Secret::from_hex(text.trim()).ok_or(StartError::Key {
            path: path.into(),
            reason: "a secret is 64 hexadecimal digits (32 bytes): `openssl rand -hex 32` makes one",
        }),
        Err(reason) => Err(StartError::Secret { path: path.into(), reason }),
    }
}

/// 32 bytes in hexadecimal, readable by the owner alone; made when the file is missing, never replaced.
pub fn secret_file(path: &Path) -> Result<Secret<32>, StartError> {
    let data = |reason| StartError::Data { path: path.into(), reason };
    match fs::metadata(path) {
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            return Err(StartError::Key { path: path.into(), reason: "others can read this secret: chmod 600 it" });
        }
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let hex = Secret::new(random::<32>()?).to_wire_hex();
            write_new(path, hex.as_bytes()).map_err(data)?;
        }
        Err(e) => return Err(data(e)),
    }
    let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(data)?);
    Secret::from_hex(text.trim()).ok_or(StartError::Key {
        path: path.into(),
        reason: "this is not 64 hexadecimal digits: restore the file from a backup",
    })
}

/// Written aside and linked into place, so that a crash leaves the whole file or none, and a file that somebody else made
/// in the meantime stays.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".new.{}", std::process::id()));
    let aside = Path::new(&aside);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(aside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(content)?;
        file.write_all(b"\n")?;
        file.sync_all()
    })();
    let linked = written.and_then(|()| match fs::hard_link(aside, path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let _ = fs::remove_file(aside);
    linked?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_for_the_owner_only() {
        let folder = std::env::temp_dir().join(format!("ims-shell-entropy-{}", std::process::id()));
        let path = folder.join("admin.token");
        let first = secret_file(&path).unwrap();
        let second = secret_file(&path).unwrap();
        assert_eq!(first.expose(), second.expose());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left aside");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(secret_file(&path), Err(StartError::Key { .. })), "a readable secret is refused");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_secret_that_somebody_mounts_is_read_as_it_is_and_never_made() {
        let folder = std::env::temp_dir().join(format!("ims-shell-secret-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("token");
        let settings = Settings { admin_token_file: Some(path.clone()), ..Settings::default() };
        let error = admin_token(&settings).unwrap_err().to_string();
        assert!(error.contains("token") && !path.exists(), "{error}");
        fs::write(&path, "ab".repeat(32)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(admin_token(&settings).unwrap().expose(), &[0xab; 32]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "ab").unwrap();
        assert!(matches!(admin_token(&settings), Err(StartError::Key { .. })));
        fs::remove_dir_all(&folder).unwrap();
    }
}
