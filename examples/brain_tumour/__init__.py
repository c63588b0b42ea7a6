"""RS-Net: synthesise a missing MR modality and segment the tumour, with learned loss weights."""
