//! The speed of kernels at the shapes of real models, with a check of some of their results beside each.
//!
//! A time is that of one launch between two events, with the second cache emptied before it: the median of [`REPEATS`], and
//! where the fastest and the slowest tenth begin. Products are `x · wᵀ` in bf16; attention has 32 heads in groups of four,
//! 128 wide, in bf16, over a paged cache.

use crate::attention::{Form, Mask, Token, World};
use crate::contraction::product;
use crate::launch::{Prepared, Stream, decode, encode, plan_of, prepare};
use serde_json::{Value, json};
use sinter_codegen_nvptx::compile;
use sinter_ir::{
    Arg, Binding, DType, DevicePtr, GpuDevice, GpuError, GpuProgram, PAGE, Real, Target, Tensor, TileParam,
    TileProgram, WeightId,
};

/// Rows and depth of weights in models of 1B and 8B parameters.
const PRODUCTS: [(usize, usize); 8] = [
    (3072, 2048),
    (2048, 2048),
    (16384, 2048),
    (2048, 8192),
    (6144, 4096),
    (4096, 4096),
    (28672, 4096),
    (4096, 14336),
];
const TOKENS: [usize; 6] = [1, 4, 16, 128, 512, 2048];
const LENGTHS: [usize; 3] = [512, 2048, 8192];
/// Heads of keys and values, query heads of each, and how wide they are.
const HEADS: (u32, u32, u32) = (8, 4, 128);
/// Times that each launch is measured.
const REPEATS: usize = 40;
/// Bytes that are cleared to empty the second cache: several times that of any GPU.
const FLUSH: u64 = 256 << 20;
/// Results that are computed anew.
const CHECKED: usize = 64;

/// What a bench needs.
struct Bench<'d> {
    device: &'d mut dyn GpuDevice,
    target: Target,
    flush: DevicePtr,
    flush_bytes: u64,
    stream: Stream,
}

/// Products and attention, as JSON; `good` says whether all ran and all checked results were right. The small form takes
/// shapes that the virtual GPU can do.
pub fn measure_all(device: &mut dyn GpuDevice, target: Target, small: bool) -> Value {
    let (products, tokens, lengths): (&[_], &[_], &[_]) =
        if small { (&[(72, 64)], &[1, 16, 70], &[70]) } else { (&PRODUCTS, &TOKENS, &LENGTHS) };
    let name = device.name();
    let flush_bytes = if small { 1 << 12 } else { FLUSH };
    let flush = match device.alloc(flush_bytes) {
        Ok(flush) => flush,
        Err(error) => return json!({ "good": false, "error": error.to_string() }),
    };
    let mut bench = Bench { device, target, flush, flush_bytes, stream: Stream(7) };
    let mut rows = Vec::new();
    for (n, k) in products {
        match bench.products((*n, *k), tokens) {
            Ok(all) => rows.extend(all),
            Err(error) => rows.push(told(json!({ "kind": "product", "n": n, "k": k }), Err(error))),
        }
    }
    for length in lengths {
        match bench.attention(*length) {
            Ok(all) => rows.extend(all),
            Err(error) => rows.push(told(json!({ "kind": "attention", "context": length }), Err(error))),
        }
    }
    let good = rows.iter().all(|row| row["good"] == true);
    json!({ "gpu": name, "target": target, "good": good, "repeats": REPEATS, "rows": rows })
}

/// A row of the results, which is printed as soon as it is there.
fn told(mut shape: Value, result: Result<Value, GpuError>) -> Value {
    let result = result.unwrap_or_else(|error| json!({ "good": false, "error": error.to_string() }));
    for (key, value) in result.as_object().into_iter().flatten() {
        shape[key] = value.clone();
    }
    println!("{shape}");
    shape
}

impl Bench<'_> {
    fn random(&mut self, shape: [usize; 2], scale: f32) -> Tensor<f32> {
        Tensor::from_fn(&shape, |_| (self.stream.number() * scale).stored(DType::Bf16))
    }

    fn upload(&mut self, param: &TileParam, tensor: &Tensor<f32>) -> Result<DevicePtr, GpuError> {
        let bytes = encode(param, tensor);
        let at = self.device.alloc(bytes.len() as u64)?;
        self.device.write(at, &bytes).map(|()| at)
    }

    fn compiled(&self, tile: &TileProgram) -> Result<GpuProgram, GpuError> {
        compile(&plan_of(tile), self.target).map_err(|error| GpuError::Device(error.to_string()))
    }

    /// One weight with so many rows in turn.
    fn products(&mut self, (n, k): (usize, usize), tokens: &[usize]) -> Result<Vec<Value>, GpuError> {
        let tile = product((DType::Bf16, DType::Bf16), (n, k));
        let program = self.compiled(&tile)?;
        let params: Vec<&TileParam> = tile.params.values().collect();
        let w = self.random([n, k], (3.0 / k as f32).sqrt());
        let weight = self.upload(params[1], &w)?;
        let mut rows = Vec::new();
        for tokens in tokens.iter().copied() {
            let x = self.random([tokens, k], 1.0);
            let from = self.upload(params[0], &x)?;
            let to = self.device.alloc((tokens * n * 2) as u64)?;
            let binding = Binding::new(tokens as u64, 1, 1, PAGE);
            let places = [(Arg::Input(0), from), (Arg::Weight(WeightId(0)), weight), (Arg::Output(0), to)];
            let shape = json!({ "kind": "product", "n": n, "k": k, "tokens": tokens });
            let measured = self.measured(&program, &binding, &places, tokens * n);
            rows.push(told(
                shape,
                measured.map(|(mut value, found)| {
                    let moved = 2 * (n * k + tokens * (n + k));
                    rates(&mut value, (moved as f64, (2 * n * k * tokens) as f64));
                    self.check(&mut value, (&x, &w), &found);
                    value
                }),
            ));
            self.device.free(from)?;
            self.device.free(to)?;
        }
        self.device.free(weight)?;
        Ok(rows)
    }

    /// Computes some of the results of a product anew.
    fn check(&mut self, value: &mut Value, (x, w): (&Tensor<f32>, &Tensor<f32>), found: &[f32]) {
        let (tokens, n, k) = (x.shape[0], w.shape[0], w.shape[1]);
        let (mut good, mut worst) = (true, 0f64);
        for _ in 0..CHECKED {
            let (row, column) = (self.stream.below(tokens), self.stream.below(n));
            let [x, w] = [&x.data[row * k..][..k], &w.data[column * k..][..k]];
            let wanted: f64 = x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let off = (f64::from(found[row * n + column]) - wanted).abs();
            // One rounding of the result, and sums of which each step keeps 24 bits.
            good &= off <= wanted.abs() / 256.0 + 1e-3;
            worst = worst.max(off);
        }
        (value["worst_error"], value["good"]) = (json!(worst), json!(good));
    }

    /// A sequence of so many positions: its last token alone, and all of them.
    fn attention(&mut self, length: usize) -> Result<Vec<Value>, GpuError> {
        let (heads, group, width) = HEADS;
        let (dtype, widths) = ("bf16", (width, width));
        let form = Form { dtype, codes: None, heads, group, widths, mask: Mask::Causal, capped: false };
        let (world, tile) = (World::new(form, &[length], 5), form.program());
        let program = self.compiled(&tile)?;
        let all = (heads * group * width) as usize;
        let mut rows = Vec::new();
        for tokens in [1, length] {
            let steps: Vec<Token> = (length - tokens..length).map(|at| (0, at)).collect();
            let (binding, params) = world.step(&steps, 1);
            let mut places: Vec<(Arg, DevicePtr)> = Vec::new();
            for ((param, tensor), arg) in tile.params.values().zip(&params).zip(&plan_of(&tile).steps[0].args)
            {
                places.push((*arg, self.upload(param, tensor)?));
            }
            let shape = json!({ "kind": "attention", "context": length, "tokens": tokens });
            let measured = self.measured(&program, &binding, &places, tokens * all);
            rows.push(told(
                shape,
                measured.map(|(mut value, found)| {
                    let pairs: usize = steps.iter().map(|(_, at)| at + 1).sum();
                    let cache = 2 * length * (heads * width) as usize * 2;
                    rates(&mut value, ((cache + 4 * tokens * all) as f64, (4 * pairs * all) as f64));
                    self.check_attention(&mut value, &params, &found);
                    value
                }),
            ));
            places.iter().try_for_each(|(_, at)| self.device.free(*at))?;
        }
        Ok(rows)
    }

    /// Computes some of the results of attention anew.
    fn check_attention(&mut self, value: &mut Value, params: &[Tensor<f32>], found: &[f32]) {
        let (heads, group, width) = HEADS;
        let (mut good, mut worst) = (true, 0f64);
        for _ in 0..CHECKED / 8 {
            let token = self.stream.below(params[3].data.len());
            let head = self.stream.below((heads * group) as usize);
            let first = (token * (heads * group) as usize + head) * width as usize;
            let found = &found[first..first + width as usize];
            for (found, wanted) in found.iter().zip(attended(params, token, head)) {
                let off = (f64::from(*found) - wanted).abs();
                // Weights and results in bf16 are off by 2⁻⁹ of at most 1 each.
                good &= off <= 8e-3;
                worst = worst.max(off);
            }
        }
        (value["worst_error"], value["good"]) = (json!(worst), json!(good));
    }

    /// Measures the launches of a program, and reads so many bf16 of its result.
    fn measured(
        &mut self,
        program: &GpuProgram,
        binding: &Binding,
        places: &[(Arg, DevicePtr)],
        count: usize,
    ) -> Result<(Value, Vec<f32>), GpuError> {
        let place =
            |arg: Arg| places.iter().find(|known| known.0 == arg).map_or(DevicePtr(0), |known| known.1);
        let launches = prepare(self.device, program, binding, &place)?;
        let times = self.times(&launches)?;
        let mut bytes = vec![0; count * 2];
        self.device.read(place(Arg::Output(0)), &mut bytes)?;
        let part = |share: usize| times.get(times.len().saturating_sub(1) * share / 10).copied();
        let value = json!({ "median_us": part(5), "fastest_tenth_us": part(1), "slowest_tenth_us": part(9) });
        Ok((value, decode(DType::Bf16, &bytes)))
    }

    /// The times of the launches in microseconds, sorted; none where the device has no clock.
    fn times(&mut self, launches: &[Prepared]) -> Result<Vec<f64>, GpuError> {
        let mut times = Vec::new();
        for round in 0..REPEATS + 3 {
            self.device.clear(self.flush, self.flush_bytes)?;
            let before = self.device.mark()?;
            launches.iter().try_for_each(|launch| launch.launch(self.device))?;
            let Some((before, after)) = before.zip(self.device.mark()?) else { break };
            let nanos = self.device.nanos_between(before, after)?;
            if round >= 3 {
                times.push(nanos as f64 / 1e3);
            }
        }
        self.device.synchronize()?;
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

/// What one token gets at one head, from the parameters of [`Form::program`]: values weighted by the softmax of products.
fn attended(params: &[Tensor<f32>], token: usize, head: usize) -> Vec<f64> {
    let (heads, group, width) = HEADS;
    let (width, page) = (width as usize, PAGE as usize);
    let [table, values, positions, queries, keys] = [1, 2, 3, 4, 5].map(|at| &params[at].data);
    let row = |data: &[f32], number: usize, of: u32, head: usize| -> Vec<f64> {
        data[(number * of as usize + head) * width..][..width].iter().map(|x| f64::from(*x)).collect()
    };
    let query = row(queries, token, heads * group, head);
    let slot = |at: usize| table[at / page] as usize * page + at % page;
    let score = |at: usize| -> f64 {
        row(keys, slot(at), heads, head / group as usize).iter().zip(&query).map(|(a, b)| a * b).sum()
    };
    let scores: Vec<f64> = (0..=positions[token] as usize).map(score).collect();
    let most = scores.iter().fold(f64::NEG_INFINITY, |most, score| most.max(*score));
    let (mut sum, mut result) = (0.0, vec![0.0; width]);
    for (at, score) in scores.iter().enumerate() {
        let weight = (score - most).exp();
        sum += weight;
        let value = row(values, slot(at), heads, head / group as usize);
        result.iter_mut().zip(value).for_each(|(to, value)| *to += weight * value);
    }
    result.into_iter().map(|x| x / sum).collect()
}

/// Bytes and operations a second by the median.
fn rates(value: &mut Value, (moved, operations): (f64, f64)) {
    if let Some(time) = value["median_us"].as_f64() {
        value["gb_per_second"] = json!(moved / time / 1e3);
        value["tflops"] = json!(operations / time / 1e6);
    }
}
