//! The driver itself: whether it is there, what it has, and what its results mean.

use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute as Attribute, CUresult};
use std::ffi::{CStr, c_char, c_int};

/// The oldest driver that has every call made here, as the driver counts: tensor maps came with 12.0.
const OLDEST: (u32, u32) = (12, 0);

/// A device that the driver knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaInfo {
    /// The device's name: `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// The compute capability, major and minor.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory: u64,
}

/// What there is of CUDA on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CudaReport {
    /// The newest CUDA version that the driver supports, if there is a driver.
    pub driver: Option<(u32, u32)>,
    /// The devices in the driver's order.
    pub devices: Vec<CudaInfo>,
    /// Why there is no device that can be used.
    pub problem: Option<String>,
}

/// Looks for the driver and its devices.
pub fn cuda_report() -> CudaReport {
    let mut report = CudaReport::default();
    if let Err(problem) = fill(&mut report) {
        report.problem = Some(problem);
    }
    report
}

fn fill(report: &mut CudaReport) -> Result<(), String> {
    // SAFETY: loading the driver's library runs its initialisers and nothing else.
    if !unsafe { sys::is_culib_present() } {
        return Err("there is no CUDA driver (libcuda.so)".into());
    }
    let mut version = 0;
    // SAFETY: the library is there; the call writes one number, also before cuInit.
    told(unsafe { sys::cuDriverGetVersion(&mut version) }, "cuDriverGetVersion")?;
    let version = version_of(version);
    report.driver = Some(version);
    if version < OLDEST {
        let ((major, minor), (wanted, _)) = (version, OLDEST);
        return Err(format!("the CUDA driver is for CUDA {major}.{minor}, wanted {wanted}.0 or newer"));
    }
    // SAFETY: initialisation takes no pointers and may be repeated.
    told(unsafe { sys::cuInit(0) }, "cuInit")?;
    let mut count = 0;
    // SAFETY: the call writes one number.
    told(unsafe { sys::cuDeviceGetCount(&mut count) }, "cuDeviceGetCount")?;
    for ordinal in 0..count {
        report.devices.push(info(device(ordinal)?)?);
    }
    if report.devices.is_empty() { Err("the CUDA driver has no device".into()) } else { Ok(()) }
}

/// The driver counts 12.8 as 12080.
fn version_of(number: c_int) -> (u32, u32) {
    let number = u32::try_from(number).unwrap_or(0);
    (number / 1000, number % 1000 / 10)
}

/// The handle of a device.
pub(super) fn device(ordinal: c_int) -> Result<CUdevice, String> {
    let mut device = 0;
    // SAFETY: the call writes one handle.
    told(unsafe { sys::cuDeviceGet(&mut device, ordinal) }, "cuDeviceGet")?;
    Ok(device)
}

/// The facts of a device.
pub(super) fn info(device: CUdevice) -> Result<CudaInfo, String> {
    let attribute = |attribute: Attribute| -> Result<u32, String> {
        let mut value = 0;
        // SAFETY: the call writes one number.
        told(unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) }, "cuDeviceGetAttribute")?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0 as c_char; 128];
    // SAFETY: the call writes at most so many characters, the closing zero included.
    told(unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device) }, "cuDeviceGetName")?;
    let mut memory = 0;
    // SAFETY: the call writes one number.
    told(unsafe { sys::cuDeviceTotalMem_v2(&mut memory, device) }, "cuDeviceTotalMem")?;
    Ok(CudaInfo {
        name: text(&name.map(|c| c as u8)),
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory: memory as u64,
    })
}

/// Text that ends at its first zero, without white space around it.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

/// A result of the driver in its own words.
pub(super) fn told(result: CUresult, call: &str) -> Result<(), String> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut words = std::ptr::null();
    // SAFETY: the call gives a static string, or leaves the pointer as it is.
    let known =
        unsafe { sys::cuGetErrorString(result, &mut words) } == CUresult::CUDA_SUCCESS && !words.is_null();
    // SAFETY: the string is static and ends with a zero.
    let words =
        if known { unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned() } else { String::new() };
    Err(format!("{call}: {result:?} ({words})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_driver_counts() {
        assert_eq!([12080, 13000, 11080, -1].map(version_of), [(12, 8), (13, 0), (11, 8), (0, 0)]);
        assert!(version_of(11080) < OLDEST && version_of(12000) >= OLDEST);
    }

    #[test]
    fn a_report_says_why_there_is_no_device() {
        let report = cuda_report();
        assert_eq!(report.devices.is_empty(), report.problem.is_some(), "{report:?}");
    }

    #[test]
    fn text_ends_at_the_zero() {
        assert_eq!(text(b"ptxas error \n\0junk"), "ptxas error");
        assert_eq!(text(b"no end"), "no end");
    }
}
