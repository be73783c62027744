//! What processes use, from `/proc` (proc(5)).

use std::fs;

const MIB: f64 = 1024.0;

/// Resident memory.
pub(crate) fn rss_mib(pid: u32) -> Option<f64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:").map(|kib| kib / MIB)
}

/// Memory that is its own, and not a file's or shared: of PostgreSQL's processes together it leaves out the shared
/// buffers, which only fill up.
pub(crate) fn anonymous_mib(pid: u32) -> Option<f64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss_Anon:").map(|kib| kib / MIB)
}

fn kib(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Open file descriptors.
pub(crate) fn fds(pid: u32) -> Option<f64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as f64)
}

/// Processor seconds of a process.
pub(crate) fn cpu_s(pid: u32) -> Option<f64> {
    stat(pid).map(|stat| stat.own_s)
}

/// Of a process, its living children and those that ended.
pub(crate) fn family_cpu_s(root: u32) -> f64 {
    let ended = stat(root).map_or(0.0, |stat| stat.ended_children_s);
    ended + family(root).into_iter().filter_map(cpu_s).sum::<f64>()
}

/// A process and its living children.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| *id == root || stat(*id).is_some_and(|stat| stat.parent == root)).collect()
}

/// The shares of the machine's time in which its cores were busy, and were lent to somebody else, as sums so far.
pub(crate) fn machine() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    // user nice system idle iowait irq softirq steal
    let fields: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let idle = fields.get(3)? + fields.get(4)?;
    Some(((fields.iter().sum::<f64>() - idle) / 100.0, *fields.get(7)? / 100.0))
}

struct Stat {
    parent: u32,
    own_s: f64,
    ended_children_s: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces: count from behind it.
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok());
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_s: (ticks(11)? + ticks(12)?) / 100.0,
        ended_children_s: (ticks(13)? + ticks(14)?) / 100.0,
    })
}
