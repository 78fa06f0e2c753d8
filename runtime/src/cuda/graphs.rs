//! What the driver keeps for us: captured graphs and events, by number.

use super::driver::told;
use cudarc::driver::sys::{
    self, CUevent, CUevent_flags, CUgraph, CUgraphExec, CUstream, CUstreamCaptureMode,
};

/// Captured graphs, ready to be launched.
#[derive(Default)]
pub(super) struct Graphs(Vec<Option<CUgraphExec>>);

impl Graphs {
    /// Launches on the stream are kept from here on, not run.
    pub(super) fn begin(stream: CUstream) -> Result<(), String> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and is not being captured: a capture ends in the same call that began it.
        told(unsafe { sys::cuStreamBeginCapture_v2(stream, mode) }, "cuStreamBeginCapture")
    }
    /// Ends the capture and gives the number of its graph.
    pub(super) fn end(&mut self, stream: CUstream) -> Result<usize, String> {
        let mut graph: CUgraph = std::ptr::null_mut();
        // SAFETY: the stream is alive; the call writes one handle.
        told(unsafe { sys::cuStreamEndCapture(stream, &mut graph) }, "cuStreamEndCapture")?;
        let mut exec: CUgraphExec = std::ptr::null_mut();
        // SAFETY: the graph was just captured; the call writes one handle.
        let made =
            told(unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0) }, "cuGraphInstantiate");
        // SAFETY: the graph is ours, and an executable graph does not need it any more.
        let gone = told(unsafe { sys::cuGraphDestroy(graph) }, "cuGraphDestroy");
        made.and(gone)?;
        self.0.push(Some(exec));
        Ok(self.0.len() - 1)
    }
    pub(super) fn launch(&self, number: usize, stream: CUstream) -> Result<(), String> {
        let exec =
            self.0.get(number).copied().flatten().ok_or_else(|| format!("there is no graph {number}"))?;
        // SAFETY: graph and stream are alive.
        told(unsafe { sys::cuGraphLaunch(exec, stream) }, "cuGraphLaunch")
    }
    pub(super) fn forget(&mut self, number: usize) -> Result<(), String> {
        let exec = self.0.get_mut(number).and_then(Option::take);
        let exec = exec.ok_or_else(|| format!("there is no graph {number}"))?;
        // SAFETY: the graph is ours and is taken off the list. The driver waits with it for launches under way.
        told(unsafe { sys::cuGraphExecDestroy(exec) }, "cuGraphExecDestroy")
    }
    pub(super) fn clear(&mut self) {
        for number in 0..self.0.len() {
            // The device is going away; there is nobody to tell.
            let _ = self.forget(number);
        }
    }
}

/// Events that mark points in the work of the stream.
#[derive(Default)]
pub(super) struct Events(Vec<Option<CUevent>>);

impl Events {
    pub(super) fn mark(&mut self, stream: CUstream) -> Result<usize, String> {
        let mut event: CUevent = std::ptr::null_mut();
        let flags = CUevent_flags::CU_EVENT_DEFAULT as u32;
        // SAFETY: the call writes one handle.
        told(unsafe { sys::cuEventCreate(&mut event, flags) }, "cuEventCreate")?;
        let at = self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[at] = Some(event);
        // SAFETY: event and stream are alive.
        told(unsafe { sys::cuEventRecord(event, stream) }, "cuEventRecord")?;
        Ok(at)
    }
    /// Nanoseconds between two marks, after waiting for the second; both are used up.
    pub(super) fn between(&mut self, from: usize, to: usize) -> Result<u64, String> {
        let mut take = |at: usize| {
            self.0.get_mut(at).and_then(Option::take).ok_or_else(|| format!("there is no mark {at}"))
        };
        let (from, to) = (take(from)?, take(to)?);
        let mut milliseconds = 0f32;
        // SAFETY: both events are alive and recorded; the call writes one number.
        let time = unsafe {
            told(sys::cuEventSynchronize(to), "cuEventSynchronize").and_then(|()| {
                told(sys::cuEventElapsedTime(&mut milliseconds, from, to), "cuEventElapsedTime")
            })
        };
        for event in [from, to] {
            // SAFETY: the event is ours and was taken off the list.
            told(unsafe { sys::cuEventDestroy_v2(event) }, "cuEventDestroy")?;
        }
        time.map(|()| (f64::from(milliseconds) * 1e6) as u64)
    }
    pub(super) fn clear(&mut self) {
        for event in self.0.drain(..).flatten() {
            // SAFETY: the event is ours. The device is going away; there is nobody to tell of an error.
            let _ = unsafe { sys::cuEventDestroy_v2(event) };
        }
    }
}
