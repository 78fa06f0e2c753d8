//! Properties of the sampler: distributions, filters at their edges, determinism.

use super::*;

fn params() -> SamplingParams {
    SamplingParams { temperature: 1.0, ..SamplingParams::greedy() }
}

/// How often each token is chosen at 20,000 positions.
fn frequencies(params: SamplingParams, logits: &[f32], context: SampleContext<'_>) -> Vec<f64> {
    let mut sampler = Sampler::new(params).unwrap();
    let mut counts = vec![0.0; logits.len()];
    for position in 0..20_000 {
        let id = sampler.sample(logits, &SampleContext { position, ..context }).unwrap();
        counts[id as usize] += 1.0 / 20_000.0;
    }
    counts
}

fn near(found: &[f64], wanted: &[f64]) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 0.015, "{found} is not {wanted}");
        assert!(*wanted > 0.0 || *found == 0.0, "a token of probability 0 was chosen");
    }
}

/// The logits of probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let mut sampler = Sampler::new(SamplingParams::greedy()).unwrap();
    let context = SampleContext::default();
    assert_eq!(sampler.sample(&[1.0, 3.0, 3.0, 2.0], &context).unwrap(), 1);
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY, -5.0], &context).unwrap(), 1);
    let allowed = TokenSet::of(4, [0, 2, 3]);
    let context = SampleContext { allowed: Some(&allowed), ..context };
    assert_eq!(sampler.sample(&[1.0, 3.0, 3.0, 2.0], &context).unwrap(), 2);
}

#[test]
fn logits_that_are_no_numbers_are_errors() {
    for params in [SamplingParams::greedy(), params()] {
        let mut sampler = Sampler::new(params).unwrap();
        for bad in [[0.0, f32::NAN], [0.0, f32::INFINITY], [f32::NEG_INFINITY; 2]] {
            let error = sampler.sample(&bad, &SampleContext::default()).unwrap_err();
            assert!(matches!(error, RuntimeError::Logits(_)));
        }
        assert!(sampler.sample(&[], &SampleContext::default()).is_err());
        let none = TokenSet::none(2);
        let context = SampleContext { allowed: Some(&none), ..Default::default() };
        assert!(sampler.sample(&[0.0, 1.0], &context).is_err());
    }
}

#[test]
fn parameters_out_of_range_are_refused() {
    let refused = |change: fn(&mut SamplingParams)| {
        let mut params = params();
        change(&mut params);
        assert!(Sampler::new(params.clone()).is_err(), "{params:?}");
    };
    refused(|p| p.temperature = -1.0);
    refused(|p| p.temperature = f32::NAN);
    refused(|p| p.top_p = 1.1);
    refused(|p| p.min_p = -0.1);
    refused(|p| p.repetition_penalty = 0.0);
    refused(|p| p.presence_penalty = f32::NAN);
    refused(|p| p.frequency_penalty = -101.0);
    refused(|p| p.logit_bias = vec![(0, 1.0), (1, f32::INFINITY)]);
}

#[test]
fn frequencies_follow_the_softmax() {
    let wanted = [0.1, 0.2, 0.3, 0.4];
    near(&frequencies(params(), &logits(&[0.1, 0.2, 0.3, 0.4]), SampleContext::default()), &wanted);
    // At temperature 1/2 probabilities are squared.
    let cold = SamplingParams { temperature: 0.5, ..params() };
    let squares = [1.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0, 16.0 / 30.0];
    near(&frequencies(cold, &logits(&[0.1, 0.2, 0.3, 0.4]), SampleContext::default()), &squares);
}

#[test]
fn filters_keep_what_transformers_keeps() {
    let row = logits(&[0.1, 0.2, 0.3, 0.4]);
    let run = |change: fn(&mut SamplingParams)| {
        let mut params = params();
        change(&mut params);
        frequencies(params, &row, SampleContext::default())
    };
    near(&run(|p| p.top_k = 2), &[0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
    near(&run(|p| p.top_k = 9), &[0.1, 0.2, 0.3, 0.4]);
    near(&run(|p| p.top_p = 0.65), &[0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
    near(&run(|p| p.top_p = 0.75), &[0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
    near(&run(|p| p.top_p = 0.0), &[0.0, 0.0, 0.0, 1.0]);
    near(&run(|p| p.min_p = 0.7), &[0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
    near(&run(|p| p.min_p = 1.0), &[0.0, 0.0, 0.0, 1.0]);
    // Top-p counts probabilities after top-k: 0.4 of 0.7 is 0.57.
    near(&run(|p| (p.top_k, p.top_p) = (2, 0.55)), &[0.0, 0.0, 0.0, 1.0]);
    near(&run(|p| (p.top_k, p.top_p) = (2, 0.6)), &[0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
}

#[test]
fn ties_go_to_the_lowest_id() {
    let row = [0.0; 4];
    let half = SamplingParams { top_p: 0.5, ..params() };
    near(&frequencies(half, &row, SampleContext::default()), &[0.5, 0.5, 0.0, 0.0]);
    // As in transformers, top-k keeps all that equal the k-th.
    let two = SamplingParams { top_k: 2, ..params() };
    near(&frequencies(two, &row, SampleContext::default()), &[0.25; 4]);
}

#[test]
fn a_long_tail_is_cut_where_a_full_sort_would_cut_it() {
    let row: Vec<f32> = (0..5000).map(|id| (uniform(1, id) * 3.0) as f32).collect();
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
    for top_p in [0.01, 0.3, 0.9, 0.999_9] {
        let weights: Vec<f64> = row.iter().map(|logit| f64::from(*logit).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let kept = 1 + order
            .iter()
            .position(|id| {
                sum += weights[*id] / total;
                sum >= f64::from(top_p)
            })
            .unwrap();
        let mut sampler = Sampler::new(SamplingParams { top_p, ..params() }).unwrap();
        let best = sampler.penalise(&row, &SampleContext::default()).unwrap();
        sampler.weigh(best);
        sampler.keep_top_p();
        assert!(sampler.kept.len().abs_diff(kept) <= 1, "{} of {kept}", sampler.kept.len());
    }
}

#[test]
fn the_penalty_moves_both_signs_down_once() {
    let row = [2.0, -2.0, 1.5];
    let params = SamplingParams { repetition_penalty: 2.0, ..SamplingParams::greedy() };
    let mut sampler = Sampler::new(params).unwrap();
    let context = SampleContext { history: &[0, 0, 1, 900], ..Default::default() };
    assert_eq!(sampler.sample(&row, &context).unwrap(), 2);
    assert_eq!(sampler.scores, [1.0, -4.0, 1.5]);
}

#[test]
fn presence_and_frequency_count_what_was_generated() {
    let params =
        SamplingParams { presence_penalty: 0.5, frequency_penalty: 0.25, ..SamplingParams::greedy() };
    let mut sampler = Sampler::new(params).unwrap();
    let context = SampleContext { history: &[0, 0, 2, 1, 2, 900], prompt: 2, ..Default::default() };
    sampler.sample(&[4.0, 4.0, 4.0], &context).unwrap();
    assert_eq!(sampler.scores, [4.0, 3.25, 3.0]);
}

#[test]
fn a_bias_is_added_to_the_logits() {
    let params =
        SamplingParams { logit_bias: vec![(1, 2.0), (0, -100.0), (900, 1.0)], ..SamplingParams::greedy() };
    let mut sampler = Sampler::new(params).unwrap();
    assert_eq!(sampler.sample(&[9.0, 1.0, 2.5], &SampleContext::default()).unwrap(), 1);
    assert_eq!(sampler.scores, [-91.0, 3.0, 2.5]);
}

#[test]
fn a_choice_depends_on_seed_and_position_only() {
    let row: Vec<f32> = (0..1000).map(|id| (uniform(2, id) * 2.0) as f32).collect();
    let choose = |seed, position, sampler: Option<&mut Sampler>| {
        let mut fresh = Sampler::new(SamplingParams { seed, top_k: 500, top_p: 0.95, ..params() }).unwrap();
        let context = SampleContext { position, ..Default::default() };
        sampler.unwrap_or(&mut fresh).sample(&row, &context).unwrap()
    };
    let mut used = Sampler::new(SamplingParams { seed: 1, top_k: 500, top_p: 0.95, ..params() }).unwrap();
    let forwards: Vec<u32> = (0..50).map(|position| choose(1, position, Some(&mut used))).collect();
    let backwards: Vec<u32> = (0..50).rev().map(|position| choose(1, position, None)).collect();
    assert!(forwards.iter().eq(backwards.iter().rev()));
    assert_ne!(forwards, (0..50).map(|position| choose(2, position, None)).collect::<Vec<_>>());
}

#[test]
fn cold_choices_are_the_largest_logit() {
    let row = [3.0, 3.000_000_2, 2.999_999_8, -1e30, 1e-3];
    for temperature in [1e-9, 1e-30, f32::MIN_POSITIVE] {
        let cold = SamplingParams { temperature, ..params() };
        near(&frequencies(cold, &row, SampleContext::default()), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn a_device_is_asked_only_where_the_row_is_all_that_matters() {
    let asked = |change: fn(&mut SamplingParams)| {
        let mut params = SamplingParams { seed: 5, ..params() };
        change(&mut params);
        Sampler::new(params).unwrap().on_device(9)
    };
    let plain = asked(|_| {}).unwrap();
    assert_eq!((plain.scale, plain.uniform), (std::f64::consts::LOG2_E, uniform(5, 9)));
    assert_eq!(asked(|p| p.temperature = 0.0).unwrap().scale, 0.0);
    assert_eq!(asked(|p| p.repetition_penalty = 1.1), None);
    assert_eq!(asked(|p| p.presence_penalty = 0.1), None);
    assert_eq!(asked(|p| p.frequency_penalty = 0.1), None);
    assert_eq!(asked(|p| p.logit_bias = vec![(1, 1.0)]), None);
}
