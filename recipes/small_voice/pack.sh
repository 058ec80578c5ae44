#!/usr/bin/env bash
# Puts together what the machine is given: pack.sh WHEELS DEBS OUTPUT
#   WHEELS  for the machine's Python: hibari-tts 0.2.1, pocketsphinx, and what it lacks of the package's needs
#   DEBS    flite, libflite1, libasound2
#   OUTPUT  a.tar.xz (package, synthesisers), b.tar.xz (the recogniser), recipes.tar.xz, codec.sh, run3.sh, both.sh, one_*.sh, machine.sh
set -euo pipefail
wheels=$(realpath "$1") debs=$(realpath "$2") output=$(realpath -m "$3")
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
python=${PYTHON:-$root/.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{src,a/site,a/flite,recipes/recipes,b/site,deb} "$output"
git -C "$root" archive HEAD | tar -x -C "$work/src"
(cd "$work/src" && "$python" -m build --wheel --no-isolation --outdir "$work" . >/dev/null 2>&1) ||
  "$python" -m pip wheel -q --no-deps --no-build-isolation -w "$work" "$work/src" || uv build -q --wheel --out-dir "$work" "$work/src"
for wheel in "$work"/*.whl "$wheels"/*.whl; do
  part=a
  [[ $wheel == */pocketsphinx-* ]] && part=b
  "$python" -m zipfile -e "$wheel" "$work/$part/site"
done
rm -rf "$work"/a/site/hibari/assets/*gb* "$work"/b/site/pocketsphinx/model/en-us/en-us-phone.lm.bin
cp -r "$work/src/recipes/small_voice" "$work/recipes/recipes/"
for deb in "$debs"/*.deb; do dpkg -x "$deb" "$work/deb"; done
for name in libflite libflite_usenglish libflite_cmulex libflite_cmu_us_{rms,slt,awb}; do
  cp "$work"/deb/usr/lib/*/"$name".so.2.* "$work/a/flite/"
  ln -s "$(basename "$work"/a/flite/"$name".so.2.*)" "$work/a/flite/$name.so.1"
done
cp -L "$work"/deb/usr/lib/*/libasound.so.2 "$work/a/flite/"
for part in a b recipes; do
  (cd "$work/$part" && find . -name __pycache__ -prune -exec rm -rf {} + && tar -cf - ./* | xz -T2 -9 >"$output/$part.tar.xz")
done
cp "$root"/recipes/small_voice/{codec,run3,both,machine,one_codec,one_lm}.sh "$output/"
git -C "$root" rev-parse --short HEAD >"$output/commit"
ls -l "$output"
