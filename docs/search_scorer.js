// How the search orders what it finds: a page whose title has all words of the query comes first,
// unless it is a record of measurements.
// `score` is called for every result; the numbers are the defaults of Sphinx.
var Scorer = {
  score: ([page, title, , , score, , kind]) => {
    const query = new URLSearchParams(window.location.search).get("q") || "";
    const wordsOf = (text) => text.toLowerCase().split(/[^\w]+/).filter(Boolean);
    const pageTitle = title.split(" > ")[0]; // a section is listed as "Page > Section"
    const inTitle = (word) => wordsOf(pageTitle).some((found) => found.startsWith(word));
    const isAnswer = kind !== "object" && !page.startsWith("measurements/");
    return isAnswer && wordsOf(query).every(inTitle) ? score + 20 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
