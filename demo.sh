#!/usr/bin/env bash
# The whole way on real pictures: digits to disk, validate, train a tiny SiT, generate, export, generate from the bundle.
# Called by `make demo`. Writes below demo/ and starts it anew each time. A failed step stops it with its reason.
set -uo pipefail
sora_spec="${BIN:-.venv/bin}/sora-spec"
spec=specs/tiny-sit-digits.yaml
out=demo
report=()

step() {  # step NAME COMMAND…: run it, remember how long it took, stop when it fails
  local name=$1 begin=$SECONDS
  shift
  printf '\n== %s\n$ sora-spec %s\n' "$name" "$*"
  if ! "$sora_spec" "$@"; then
    printf '\nThe demo stopped: "%s" failed; the reason is printed above.\n' "$name" >&2
    exit 1
  fi
  report+=("$(printf '%4d s  %s' $((SECONDS - begin)) "$name")")
}

rm -rf "$out"
mkdir -p "$out"
step "real handwritten digits, moving, to disk as mp4" data digits "$out/digits" --clips 500
step "validate the spec" validate "$spec"
step "what the spec means" show "$spec"
# Short enough for a demo: blurred digits appear. The full recipe of the spec takes under 25 minutes.
step "train the VAE" train "$spec" train.data="$out/digits" vae.training.steps="${VAE_STEPS:-150}" \
  train.steps="${STEPS:-200}" train.sample_every=null train.ema=0.98 --stage vae --run "$out/run"
step "train a tiny SiT on its latents" train "$out/run" --stage denoiser --resume
step "generate with PyTorch" generate "$out/run" --labels 0-9 --seed 1 --out "$out/video-torch"
step "export to ONNX, compare with PyTorch" export "$out/run" --onnx --out "$out/bundle"
step "generate from the bundle, without PyTorch" generate "$out/bundle" --labels 0-9 --seed 1 --out "$out/video-onnx"

printf '\n== done: the demo took %d s\n' "$SECONDS"
printf '%s\n' "${report[@]}"
printf 'videos:         %s\n' "$out/video-torch/*.mp4" "$out/video-onnx/*.mp4"
printf 'contact sheets: %s\n' "$out"/video-*/*.png
