// A page that lies on a disk may not fetch the pages that it found: results are then listed without their text.
if (location.protocol === 'file:' && typeof DOCUMENTATION_OPTIONS !== 'undefined') {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}
