//! What runs of the same test left behind when they were killed before they could clean up. A run is known by the process id at
//! the end of its names; what belongs to a process that lives is not touched.

use crate::patience::until;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The process id in `{before}{pid}{after}`, if there is no such process any more.
fn dead(name: &str, before: &str, after: &str) -> Option<u32> {
    let pid: u32 = name.strip_prefix(before)?.strip_suffix(after)?.parse().ok()?;
    (!Path::new(&format!("/proc/{pid}")).exists()).then_some(pid)
}

/// Folders of dead runs, [`crate::Folder`]s with this name.
fn folders(name: &str) -> Vec<PathBuf> {
    let before = format!("imsbox-{name}-");
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    entries.filter(|e| dead(&e.file_name().to_string_lossy(), &before, "").is_some()).map(|e| e.path()).collect()
}

pub(crate) fn remove_folders(name: &str) {
    for folder in folders(name) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Engines of dead runs: their processes, mounts, control groups, namespaces and folders.
pub(crate) fn remove_engines(name: &str) {
    for folder in folders(name) {
        eprintln!("removing what a run that was killed left in {}", folder.display());
        end_processes(&folder);
        unmount(&folder);
        for group in control_groups(&folder) {
            remove_group(&group);
        }
        if let Err(why) = fs::remove_dir_all(&folder) {
            eprintln!("{} is not removed: {why}", folder.display());
        }
    }
    let listed = Command::new("ip").args(["netns", "list"]).output().map(|out| out.stdout).unwrap_or_default();
    for namespace in String::from_utf8_lossy(&listed).lines().filter_map(|line| line.split_whitespace().next()) {
        let before = format!("{name}-");
        if ["", "-ue"].iter().any(|after| dead(namespace, &before, after).is_some()) {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
        }
    }
}

/// The engine, which may be about to end by itself, its containerd and shims: all have the folder on their command line. Then
/// what runs in its containers.
fn end_processes(folder: &Path) {
    let part = format!("{}/", folder.display());
    let engine = || -> Vec<u32> {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        let of_it = |pid: &u32| {
            let read = |file: &str| {
                String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned()
            };
            let name = read("comm");
            (name.starts_with("dockerd") || name.starts_with("containerd")) && read("cmdline").contains(&part)
        };
        pids.filter(of_it).collect()
    };
    let contained = || -> Vec<u32> { control_groups(folder).iter().flat_map(|group| members(group)).collect() };
    for (signal, patience) in [("-TERM", 15), ("-KILL", 5)] {
        let mut told: Vec<u32> = Vec::new();
        let all_gone = until(Duration::from_secs(patience), || {
            let left = [engine(), contained()].concat();
            for pid in left.iter().filter(|pid| !told.contains(pid)) {
                let _ = Command::new("kill").args([signal, &pid.to_string()]).output();
            }
            told = left;
            told.is_empty()
        });
        if all_gone {
            return;
        }
    }
}

/// The deepest first: a removal of the folder must not go into a mounted file system.
fn unmount(folder: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut places: Vec<PathBuf> = places.filter(|place| place.starts_with(folder)).collect();
    places.sort();
    for place in places.iter().rev() {
        let _ = Command::new("umount").arg("-l").arg(place).output();
    }
}

/// The control groups of the engine in this folder. Version 1 has one tree for each controller, version 2 one.
pub(crate) fn control_groups(folder: &Path) -> Vec<PathBuf> {
    let Some(name) = folder.file_name() else { return Vec::new() };
    let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|tree| tree.path());
    let groups = trees.chain([PathBuf::from("/sys/fs/cgroup")]).map(|tree| tree.join(name));
    groups.filter(|group| group.is_dir()).collect()
}

fn inner(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}

fn members(group: &Path) -> Vec<u32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok());
    own.chain(inner(group).iter().flat_map(|inside| members(inside))).collect()
}

fn remove_group(group: &Path) {
    inner(group).iter().for_each(|inside| remove_group(inside));
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folder;

    #[test]
    fn folders_of_dead_runs_go_and_those_of_the_living_stay() {
        let ended = Command::new("true").spawn().and_then(|mut child| child.wait().map(|_| child.id())).unwrap();
        let there = |name: &str| std::env::temp_dir().join(name);
        let left = there(&format!("imsbox-leftover-{ended}"));
        // Of the one that waits for this test, of another test, and of nobody.
        let others = [
            there(&format!("imsbox-leftover-{}", std::os::unix::process::parent_id())),
            there(&format!("imsbox-leftover-more-{ended}")),
            there("imsbox-leftover-x"),
        ];
        others.iter().chain([&left]).for_each(|folder| fs::create_dir_all(folder.join("deeper")).unwrap());
        let folder = Folder::new("leftover");
        assert!(!left.exists() && folder.path().is_dir());
        for other in others {
            assert!(other.is_dir(), "{}", other.display());
            fs::remove_dir_all(other).unwrap();
        }
    }
}
