//! Quantiles, memory and processor time.

use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Latencies in milliseconds, in order.
pub(crate) struct Latencies(Vec<f64>);

impl Latencies {
    pub(crate) fn new(mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        Self(ms)
    }

    pub(crate) fn at(&self, share: f64) -> f64 {
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Resident memory of a process in MiB, once a second.
pub(crate) struct Rss(Vec<f64>);

impl Rss {
    pub(crate) async fn watch(pid: u32, duration: Duration) -> Self {
        let began = Instant::now();
        let mut samples = Vec::new();
        while began.elapsed() < duration {
            samples.push(rss_mib(pid));
            sleep(Duration::from_secs(1)).await;
        }
        Self(samples)
    }

    pub(crate) fn samples(&self) -> &[f64] {
        &self.0
    }

    pub(crate) fn highest(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// So many of the samples, evenly spread.
    pub(crate) fn over_time(&self, count: usize) -> String {
        let step = (self.0.len() / count).max(1);
        self.0.iter().step_by(step).map(|mib| format!("{mib:.1}")).collect::<Vec<_>>().join(" ")
    }
}

fn rss_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Processor seconds a process has used.
pub(crate) fn cpu_s(pid: u32) -> f64 {
    let ticks = |i: usize| stat(pid).get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// The same of a process and its children.
pub(crate) fn family_cpu_s(pid: u32) -> f64 {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    cpu_s(pid) + ids.filter(|id| parent(*id) == Some(pid)).map(cpu_s).sum::<f64>()
}

pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid).get(1)?.parse().ok()
}

/// proc(5), from the state on: parent at 1, utime and stime at 11 and 12, in 1/100 s.
fn stat(pid: u32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces: count from behind it.
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}
