//! This machine: its name in databases, what the cost model is told of it, and how fast its clock is.

use sinter_codegen_host::Machine;
use sinter_codegen_host::micro::Isa;
use std::fs;

/// What measurements on this machine are valid for: the processor, its instructions, and the threads.
pub fn device(threads: usize) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = field(&cpuinfo, "model name").unwrap_or("unknown processor");
    let threads_word = if threads == 1 { "thread" } else { "threads" };
    let cache = cache_bytes(2).map_or(String::new(), |bytes| format!(", {} KiB", bytes / 1024));
    format!("host, {name}, {}{cache}, {threads} {threads_word}", Isa::detect())
}

/// This machine as the cost model sees it.
pub fn machine(threads: usize) -> Machine {
    let typical = Machine::typical(Isa::detect(), threads);
    Machine { second_cache: cache_bytes(2).map_or(typical.second_cache, |bytes| bytes as f64), ..typical }
}

/// The mean clock of all cores in MHz, where the system says it.
pub fn clock() -> Option<f64> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    let clocks: Vec<f64> = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("cpu MHz")?.split_once(':')?.1.trim().parse().ok())
        .collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}

/// Bytes of the first core's cache of a level.
fn cache_bytes(level: u32) -> Option<u64> {
    (0..8).find_map(|index| {
        let file = |name: &str| {
            fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}")).ok()
        };
        let found = file("level")?.trim().parse::<u32>().ok()?;
        let kind = file("type")?;
        if found != level || kind.trim() == "Instruction" {
            return None;
        }
        file("size")?.trim().strip_suffix('K')?.parse::<u64>().ok()?.checked_mul(1024)
    })
}

/// The first value of a field of `/proc/cpuinfo`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_processor_and_threads() {
        assert_eq!(field("processor\t: 0\nmodel name\t: A B\nmodel name\t: C\n", "model name"), Some("A B"));
        assert_eq!(field("processor: 0\n", "model name"), None);
        let device = device(3);
        assert!(device.starts_with("host, ") && device.ends_with(", 3 threads"), "{device}");
        assert_ne!(device, super::device(2));
    }
}
