//! This program again, under callgrind, and what that counted.

use std::path::Path;
use std::process::Command;

/// Runs this program with that argument. The instructions within the function of that name, call by call, and last those
/// after the last call.
pub(crate) fn counts(argument: &str, function: &str) -> Result<Vec<u64>, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program is not to be found: {error}"))?;
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--combine-dumps=yes"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--toggle-collect={function}"))
        .arg(format!("--dump-after={function}"))
        .arg(program)
        .arg(argument)
        // Sizes of caches, which glibc asks for, decide how memory is copied.
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_non_temporal_threshold=0xc0000")
        .output()
        .map_err(|error| format!("valgrind does not run ({error}): make counts installs it"))?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let text = std::fs::read_to_string(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let totals = text.lines().filter_map(|line| line.strip_prefix("totals: "));
    totals.map(|total| total.trim().parse().map_err(|_| format!("callgrind wrote the total {total:?}"))).collect()
}

/// What the counts depend on besides this repository: compiler, C library, valgrind, and what instructions it offers.
pub(crate) fn made_with() -> Result<String, String> {
    let rustc = first_line("rustc", &["--version"])?;
    let rustc: Vec<&str> = rustc.split(' ').take(2).collect();
    let (libc, valgrind) = (first_line("getconf", &["GNU_LIBC_VERSION"])?, first_line("valgrind", &["--version"])?);
    // Valgrind plays a processor with AVX2 where it runs on one.
    #[cfg(target_arch = "x86_64")]
    let processor = if std::arch::is_x86_feature_detected!("avx2") { "x86_64 with AVX2" } else { "x86_64" };
    #[cfg(not(target_arch = "x86_64"))]
    let processor = std::env::consts::ARCH;
    Ok(format!("{}, {libc}, {valgrind}, {processor}", rustc.join(" ")))
}

fn first_line(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned).ok_or(format!("{program} {arguments:?} says nothing"))
}
