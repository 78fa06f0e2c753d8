//! The virtual GPU: PTX executed on the CPU, warp by warp, with a sanitizer and counters.
//!
//! Most machines that build the compiler have no GPU, and what it emits must be right on all of them. So the PTX that
//! would go to the driver comes here instead. [`VirtualGpu`] fulfils [`sinter_ir::GpuDevice`], as the CUDA driver does:
//! whoever launches a kernel cannot tell them apart, but by what is said when the kernel is wrong.
//!
//! # The way of a kernel
//!
//! 1. [`ptx::parse`] reads the text: entries, parameters, registers, labels, statements with their lines. It knows no
//!    instruction.
//! 2. Decoding makes a program of it, once. Every mnemonic is looked up in the table of [`forms`], whose rows say which
//!    operands a form takes and what it does. **A form without a row is an error that names the line; nothing is guessed.**
//!    Registers become numbers; immediates and special registers become registers that are set before the kernel starts,
//!    so an instruction has one kind of operand. For each branch the place is found where its ways meet again.
//! 3. A launch goes cluster by cluster, in order, on several threads of the host. The warps of a cluster take turns: each
//!    runs until it waits for something or its turn is over. The 32 lanes of a warp run in lockstep on arrays of 32
//!    values; lanes that part at a branch are run one group after the other until they meet (immediate post-dominators and
//!    a stack). Results do not depend on the number of host threads, as far as the kernel's blocks are independent;
//!    atomics are atomic, and the block that finishes last can collect what the others left.
//!
//! # What is watched
//!
//! - *Global memory.* Allocations have gaps between them and addresses are never used twice, so an access out of bounds or
//!   after `free` meets nothing. Every byte knows whether it was written. Every word knows which block and warp of the
//!   launch last wrote and last read it: two that touch the same bytes, one of them writing, are in a race unless a barrier
//!   (within a block) or atomics and fences of the device (between blocks) order them.
//! - *Registers.* A value that was never set may be moved, and is an error where it is used.
//! - *Shared memory.* Every word knows its last write and the reads since, each with the time of the agent that did it.
//!   Barriers, mbarriers, atomics and clusters hand times on (vector clocks); an access that conflicts with one it has not
//!   heard of is a race, even where this run happened to go well. Asynchronous copies and matrix products are agents of
//!   their own. Writes must pass a `fence.proxy.async` before the asynchronous proxy reads them. Bytes to which a copy is
//!   under way are marked until it is waited for.
//! - *Waiting.* If no warp can go on, the kernel is in a deadlock, and every waiting warp is named.
//! - *Order within a warp.* Barriers and matrix instructions need all lanes, shuffles those of their mask; lanes that
//!   exchange words through shared memory need `bar.warp.sync`.
//! - *Launches.* Arguments, threads, shared memory and clusters must be what the entry and the target allow.
//!
//! A fault names kernel, line, text, block, thread, and what was wanted and found.
//!
//! What is not watched: lanes of a warp that race on global memory, reads of a warp followed by a write of another lane of
//! the same warp in shared memory, launches that overlap, time, and the limits of registers and of occupancy. Of a word of
//! global memory that several have read, no more is known than that; launches of a million clusters are not watched for races.
//!
//! # What is counted
//!
//! [`Counters`], for each launch: DRAM traffic as distinct 32-byte sectors, sectors a request, conflicts of the banks of
//! shared memory, instructions by class, matrix products and their operations. [`VirtualGpu::take_counters`] hands them out.
//!
//! # Numbers
//!
//! IEEE operations are exact to the bit, NaN included. Tensor cores add as the published model says ([`tensor`]).
//! Approximations (`ex2.approx` and its like) are computed in 64 bits and rounded once: within PTX's bounds, and not the
//! bits of a GPU. `forms.md` lists the forms.
//!
//! ```
//! use sinter_ir::{GpuDevice, LaunchArg, LaunchShape, Target};
//! use sinter_vgpu::VirtualGpu;
//!
//! let ptx = "
//! .version 7.0
//! .target sm_80
//! .address_size 64
//! .visible .entry double(.param .u64 x)
//! {
//!     .reg .b32 %r<3>;
//!     .reg .b64 %rd<4>;
//!     mov.u32 %r1, %tid.x;
//!     mul.wide.u32 %rd1, %r1, 4;
//!     ld.param.b64 %rd2, [x];
//!     add.s64 %rd3, %rd2, %rd1;
//!     ld.global.b32 %r2, [%rd3];
//!     add.s32 %r2, %r2, %r2;
//!     st.global.b32 [%rd3], %r2;
//!     ret;
//! }";
//! let mut gpu = VirtualGpu::new(Target::Sm80);
//! let x = gpu.alloc(8)?;
//! gpu.write(x, &[1, 0, 0, 0, 3, 0, 0, 0])?;
//! let kernel = gpu.load(ptx, "double", 0)?;
//! let mut shape = LaunchShape { blocks: 1, threads: 2, shared_bytes: 0, cluster: 1, dependent: false };
//! gpu.launch(kernel, shape, &[LaunchArg::Address(x)])?;
//! let mut bytes = [0; 8];
//! gpu.read(x, &mut bytes)?;
//! assert_eq!(bytes, [2, 0, 0, 0, 6, 0, 0, 0]);
//!
//! // A third thread has no word to double.
//! shape.threads = 3;
//! let error = gpu.launch(kernel, shape, &[LaunchArg::Address(x)]).unwrap_err();
//! assert!(error.to_string().contains("out of bounds: 4 bytes"));
//! assert!(error.to_string().contains("PTX line 13: ld.global.b32 %r2, [%rd3]; block 0, thread 2"));
//! # Ok::<(), sinter_ir::GpuError>(())
//! ```

pub mod async_copy;
mod counters;
mod device;
mod exec;
mod fault;
pub mod forms;
mod memory;
pub mod ptx;
pub mod tensor;

pub use counters::Counters;
pub use device::{LaunchCounters, VirtualGpu};
pub use fault::Fault;
