// One picture from the camera, where the browser lets a page have it.
const $ = id => document.getElementById(id);
const REASONS = {
  NotAllowedError: "the camera is not allowed here: the browser's settings of this page can allow it",
  NotFoundError: "there is no camera",
  NotReadableError: "the camera is used by another program",
};
let stream = null;

/** Show what the camera sees until a picture is taken, which goes to `take`, or the dialog is closed. */
export async function openCamera(take, fail) {
  if (!isSecureContext || !navigator.mediaDevices)
    return fail("browsers give the camera to pages over HTTPS or on localhost only");
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment", width: {ideal: 1920}}});
  } catch (error) {
    return fail(REASONS[error.name] ?? `the camera does not open: ${error.message}`);
  }
  $("shoot").disabled = true;
  $("shoot").onclick = () => shoot(take);
  $("video").onloadeddata = () => { $("shoot").disabled = false; $("shoot").focus(); };
  $("video").srcObject = stream;
  $("finder").showModal();
}

async function shoot(take) {
  const video = $("video"), canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  $("finder").close();
  take([new File([await canvas.convertToBlob({type: "image/jpeg", quality: 0.95})], "camera.jpg", {type: "image/jpeg"})]);
}

$("close").addEventListener("click", () => $("finder").close());
$("finder").addEventListener("close", () => {  // its light goes out
  for (const track of stream?.getTracks() ?? []) track.stop();
  $("video").srcObject = stream = null;
});
