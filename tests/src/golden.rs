//! Goldens: ladders kept under `tests/goldens`, rewritten with `IMSBOX_UPDATE_GOLDENS=1`.

use std::path::Path;

/// Compares `ladder` with the golden of that name.
///
/// # Panics
/// When they differ, with both texts.
pub fn golden(name: &str, ladder: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(format!("{name}.txt"));
    if std::env::var_os("IMSBOX_UPDATE_GOLDENS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap_or(&file))
            .and_then(|()| std::fs::write(&file, ladder))
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        expected == ladder,
        "the ladder differs from {} (IMSBOX_UPDATE_GOLDENS=1 rewrites it)\n--- expected\n{expected}\n--- got\n{ladder}",
        file.display()
    );
}
