#!/usr/bin/env python3
"""Writes the cases scheduler_* of settings that a request can choose (--schedule, --final-sigmas-type, --eta, ...), as diffusers computes them.

    python3 tests/cases/make_scheduler_cases.py        (torch, diffusers 0.42.1, scipy)

A case has the configuration as scheduler_config.json, a sample, a model's outputs for every step (random numbers), fresh noise where the
sampler takes some, and what comes of it: timesteps, sigmas, the model's inputs and the samples after each step. DDIM's eta, an argument of
diffusers' step, is a field of the configuration here.
"""
import json
import os
import sys

import diffusers as D
import numpy as np
import torch
from case_writer import Writer, gen

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
FLOW = dict(use_flow_sigmas=True, prediction_type="flow_prediction")
DRAWING = (D.DDPMScheduler, D.EulerAncestralDiscreteScheduler, D.LCMScheduler)
SHAPE = (1, 4, 4, 4)
CASES = {
    "euler_beta": (D.EulerDiscreteScheduler, dict(SD, use_beta_sigmas=True), 10, {}),
    "euler_exponential": (D.EulerDiscreteScheduler, dict(SD, use_exponential_sigmas=True), 10, {}),
    "euler_sigma_min": (D.EulerDiscreteScheduler, dict(SD, final_sigmas_type="sigma_min"), 10, {}),
    "euler_turbo": (D.EulerDiscreteScheduler, dict(SD, timestep_spacing="trailing", steps_offset=1), 1, {}),
    "euler_v_zsnr": (D.EulerDiscreteScheduler, dict(SD, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"), 10, {}),
    "dpmpp_2m_beta": (D.DPMSolverMultistepScheduler, dict(SD, use_beta_sigmas=True), 10, {}),
    "dpmpp_2m_exponential": (D.DPMSolverMultistepScheduler, dict(SD, use_exponential_sigmas=True), 10, {}),
    "dpmpp_2m_sigma_min": (D.DPMSolverMultistepScheduler, dict(SD, final_sigmas_type="sigma_min"), 10, {}),
    "unipc_beta": (D.UniPCMultistepScheduler, dict(SD, use_beta_sigmas=True), 10, {}),
    "unipc_karras": (D.UniPCMultistepScheduler, dict(SD, use_karras_sigmas=True), 10, {}),
    "flow_euler_beta": (D.FlowMatchEulerDiscreteScheduler, dict(shift=3.0, use_beta_sigmas=True), 10, {}),
    "flow_euler_karras": (D.FlowMatchEulerDiscreteScheduler, dict(shift=3.0, use_karras_sigmas=True), 10, {}),
    "flow_euler_exponential": (D.FlowMatchEulerDiscreteScheduler, dict(shift=3.0, use_exponential_sigmas=True), 10, {}),
    "dpmpp_2m_heun": (D.DPMSolverMultistepScheduler, dict(SD, solver_type="heun"), 10, {}),
    "dpmpp_2m_sde_heun": (D.DPMSolverMultistepScheduler, dict(SD, algorithm_type="sde-dpmsolver++", solver_type="heun"), 10, {}),
    "dpmpp_2m_lu": (D.DPMSolverMultistepScheduler, dict(SD, use_lu_lambdas=True), 10, {}),
    "dpmpp_2m_flow": (D.DPMSolverMultistepScheduler, dict(FLOW, flow_shift=3.0), 10, {}),
    "dpmpp_2m_zsnr": (D.DPMSolverMultistepScheduler, dict(SD, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"), 10, {}),
    "dpmpp_3m": (D.DPMSolverMultistepScheduler, dict(SD, solver_order=3), 10, {}),
    "dpmpp_3m_sde": (D.DPMSolverMultistepScheduler, dict(SD, solver_order=3, algorithm_type="sde-dpmsolver++"), 25, {}),
    "dpmpp_3m_sigma_min": (D.DPMSolverMultistepScheduler, dict(SD, solver_order=3, lower_order_final=False, final_sigmas_type="sigma_min"), 10, {}),
    "unipc_flow": (D.UniPCMultistepScheduler, dict(FLOW, flow_shift=2.0), 10, {}),
    "unipc_3m": (D.UniPCMultistepScheduler, dict(SD, solver_order=3), 10, {}),
    "unipc_3m_flow": (D.UniPCMultistepScheduler, dict(FLOW, flow_shift=2.0, solver_order=3), 25, {}),
    "unipc_3m_bh1": (D.UniPCMultistepScheduler, dict(SD, solver_order=3, solver_type="bh1", final_sigmas_type="sigma_min"), 10, {}),
    "unipc_bh1": (D.UniPCMultistepScheduler, dict(SD, solver_type="bh1", final_sigmas_type="sigma_min"), 10, {}),
    "unipc_3m_uncorrected": (D.UniPCMultistepScheduler, dict(SD, solver_order=3, disable_corrector=[0, 1, 5]), 10, {}),
    "unipc_3m_noise": (D.UniPCMultistepScheduler, dict(SD, solver_order=3, predict_x0=False, lower_order_final=False, final_sigmas_type="sigma_min"), 10, {}),
    "unipc_noise_v": (D.UniPCMultistepScheduler, dict(SD, predict_x0=False, prediction_type="v_prediction", use_karras_sigmas=True, final_sigmas_type="sigma_min"), 10, {}),
    "unipc_noise_sample": (D.UniPCMultistepScheduler, dict(SD, predict_x0=False, solver_type="bh1", prediction_type="sample", final_sigmas_type="sigma_min"), 10, {}),
    "pndm_v": (D.PNDMScheduler, dict(SD, skip_prk_steps=True, prediction_type="v_prediction"), 10, {}),
    "lcm_timestep_scaling": (D.LCMScheduler, dict(SD, timestep_scaling=0.01, original_inference_steps=50), 10, {}),
    "flow_euler_terminal": (D.FlowMatchEulerDiscreteScheduler, dict(shift=3.0, shift_terminal=0.1), 10, {}),
    "flow_euler_linear": (D.FlowMatchEulerDiscreteScheduler, dict(use_dynamic_shifting=True, time_shift_type="linear"), 10, {"mu": 1.7}),
    "ddim_sample": (D.DDIMScheduler, dict(SD, prediction_type="sample", clip_sample=True, clip_sample_range=0.5, set_alpha_to_one=True), 10, {}),
    # what the classes assume where a configuration says next to nothing
    "ddim_bare": (D.DDIMScheduler, {}, 10, {}),
    "ddpm_bare": (D.DDPMScheduler, {}, 10, {}),
    "pndm_bare": (D.PNDMScheduler, dict(skip_prk_steps=True), 10, {}),
    "euler_bare": (D.EulerDiscreteScheduler, {}, 10, {}),
    "euler_ancestral_bare": (D.EulerAncestralDiscreteScheduler, {}, 10, {}),
    "dpmpp_2m_bare": (D.DPMSolverMultistepScheduler, {}, 10, {}),
    "unipc_bare": (D.UniPCMultistepScheduler, {}, 10, {}),
    "lcm_bare": (D.LCMScheduler, {}, 10, {}),
    "flow_euler_bare": (D.FlowMatchEulerDiscreteScheduler, {}, 10, {}),
    "ddim_eta": (D.DDIMScheduler, dict(SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1), 10, {"eta": 0.7}),
}


def write(w, name, scheduler_class, config, steps, extra):
    scheduler = scheduler_class(**config)
    if "mu" in extra:  # as Flux's pipeline does
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=extra["mu"])
    else:
        scheduler.set_timesteps(steps)
    draws = config.get("algorithm_type", "").startswith("sde") or scheduler_class in DRAWING
    g = gen(sum(map(ord, name)))
    sample = torch.randn(SHAPE, generator=g)
    outputs = torch.randn((len(scheduler.timesteps),) + SHAPE, generator=g)
    noises = torch.randn((len(scheduler.timesteps),) + SHAPE, generator=g)
    tensors = {"in.sample": sample, "in.model_outputs": outputs, "out.timesteps": scheduler.timesteps.float()}
    if draws or "eta" in extra:
        tensors["in.noises"] = noises
    if hasattr(scheduler, "sigmas") and not isinstance(scheduler, D.DDIMScheduler):
        tensors["mid.sigmas"] = scheduler.sigmas.float()
    x, samples, inputs = sample, [], []
    for i, t in enumerate(scheduler.timesteps):
        inputs.append(scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x)
        more = dict(eta=extra["eta"], variance_noise=noises[i]) if "eta" in extra else {}
        if draws:
            sys.modules[scheduler_class.__module__].randn_tensor = lambda *_, **__: noises[i]
        x = scheduler.step(outputs[i], t, x, **more).prev_sample
        samples.append(x)
    tensors |= {"out.samples": torch.stack(samples), "mid.model_inputs": torch.stack(inputs)}
    folder = w.case(f"scheduler_{name}_{steps}", "scheduler", tensors, atol=1e-4, rtol=1e-4, steps=steps, **{k: v for k, v in extra.items() if k == "mu"})
    with open(os.path.join(folder, "scheduler_config.json"), "w") as f:
        whole = dict(config, _class_name=scheduler_class.__name__) if name.endswith("_bare") else json.loads(scheduler.to_json_string())
        json.dump({**whole, **{k: v for k, v in extra.items() if k == "eta"}}, f, indent=2, sort_keys=True)


root = os.path.dirname(os.path.abspath(__file__))
for name, case in CASES.items():
    write(Writer(root, ""), name, *case)
